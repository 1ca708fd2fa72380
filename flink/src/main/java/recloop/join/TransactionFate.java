package recloop.join;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Predicate;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.TransactionState;

/**
 * Whether the last thing that happened to a transactional id is that Kafka aborted its transaction by itself. When a
 * new producer aborts what an older one has left open, the id is initialised behind that, and its state is another.
 *
 * <p>Errs towards alarm: an id that was committed, used again, and open when the job died, looks the same when the job
 * was then away for longer than the timeout.
 */
final class TransactionFate implements Predicate<String> {
    private static final int TIMEOUT_S = 30;

    private final String bootstrap;

    TransactionFate(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    @Override
    public boolean test(String transactionalId) {
        try (Admin admin = Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap))) {
            TransactionState state = admin.describeTransactions(List.of(transactionalId))
                    .description(transactionalId)
                    .get(TIMEOUT_S, TimeUnit.SECONDS)
                    .state();
            return state == TransactionState.COMPLETE_ABORT
                    || state == TransactionState.PREPARE_ABORT
                    || state == TransactionState.PREPARE_EPOCH_FENCE;
        } catch (ExecutionException | TimeoutException error) {
            throw new IllegalStateException("what became of transaction " + transactionalId + " is not known", error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted", error);
        }
    }
}
