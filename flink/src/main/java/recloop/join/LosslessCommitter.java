package recloop.join;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.function.Predicate;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.connector.kafka.sink.KafkaCommittable;
import org.apache.flink.runtime.execution.SuppressRestartsException;

/**
 * Commits as Flink's committer does, but for one thing. When a commit is refused because the transaction has gone,
 * Flink's logs a line and goes on. After a restart that is mostly right: the transaction was committed before, and its
 * id has had another epoch since. It is a loss when Kafka aborted it: because the job was away for longer than the
 * transaction's timeout, or because another job writes with the same ids. Then this one ends the job, for good: a
 * restart would not bring the records back.
 */
final class LosslessCommitter implements Committer<KafkaCommittable> {
    private final Committer<KafkaCommittable> committer;
    private final Predicate<String> aborted;

    /** {@code aborted}: whether the last thing that happened to a transactional id is that Kafka aborted it. */
    LosslessCommitter(Committer<KafkaCommittable> committer, Predicate<String> aborted) {
        this.committer = committer;
        this.aborted = aborted;
    }

    @Override
    public void commit(Collection<CommitRequest<KafkaCommittable>> requests)
            throws IOException, InterruptedException {
        List<CommitRequest<KafkaCommittable>> strict = new ArrayList<>(requests.size());
        requests.forEach(request -> strict.add(new Request(request)));
        committer.commit(strict);
    }

    @Override
    public void close() throws Exception {
        committer.close();
    }

    /** A request that does not take a loss for an answer. */
    private final class Request implements CommitRequest<KafkaCommittable> {
        private final CommitRequest<KafkaCommittable> request;

        Request(CommitRequest<KafkaCommittable> request) {
            this.request = request;
        }

        @Override
        public void signalFailedWithKnownReason(Throwable reason) {
            KafkaCommittable committable = request.getCommittable();
            // Its own producer still being here, it was not committed by an earlier run of the job.
            if (committable.getProducer().isPresent() || aborted.test(committable.getTransactionalId())) {
                throw new SuppressRestartsException(new LostTransaction(committable.getTransactionalId(), reason));
            }
            request.signalFailedWithKnownReason(reason);
        }

        @Override
        public KafkaCommittable getCommittable() {
            return request.getCommittable();
        }

        @Override
        public int getNumberOfRetries() {
            return request.getNumberOfRetries();
        }

        @Override
        public void signalFailedWithUnknownReason(Throwable reason) {
            request.signalFailedWithUnknownReason(reason);
        }

        @Override
        public void retryLater() {
            request.retryLater();
        }

        @Override
        public void updateAndRetryLater(KafkaCommittable committable) {
            request.updateAndRetryLater(committable);
        }

        @Override
        public void signalAlreadyCommitted() {
            request.signalAlreadyCommitted();
        }
    }
}
