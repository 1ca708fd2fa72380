package recloop.join;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.connector.kafka.sink.KafkaCommittable;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.junit.jupiter.api.Test;

/** What becomes of a commit that Kafka refuses; that Kafka does refuse, and how, tests/flink shows. */
final class LosslessCommitterTest {
    private static final KafkaCommittable RECOVERED = new KafkaCommittable(7, (short) 3, "flink-joiner-0-1", null);

    /** Flink's committer when the transaction has gone. */
    private static final class Refused implements Committer<KafkaCommittable> {
        @Override
        public void commit(Collection<CommitRequest<KafkaCommittable>> requests) {
            requests.forEach(request -> request.signalFailedWithKnownReason(new ProducerFencedException("fenced")));
        }

        @Override
        public void close() {}
    }

    private static final class Asked implements Committer.CommitRequest<KafkaCommittable> {
        final List<Throwable> failed = new ArrayList<>();

        @Override
        public KafkaCommittable getCommittable() {
            return RECOVERED;
        }

        @Override
        public int getNumberOfRetries() {
            return 0;
        }

        @Override
        public void signalFailedWithKnownReason(Throwable reason) {
            failed.add(reason);
        }

        @Override
        public void signalFailedWithUnknownReason(Throwable reason) {
            throw new AssertionError(reason);
        }

        @Override
        public void retryLater() {
            throw new AssertionError();
        }

        @Override
        public void updateAndRetryLater(KafkaCommittable committable) {
            throw new AssertionError();
        }

        @Override
        public void signalAlreadyCommitted() {
            throw new AssertionError();
        }
    }

    @Test
    void aTransactionThatKafkaAbortedEndsTheJobForGood() {
        Asked asked = new Asked();
        LosslessCommitter committer = new LosslessCommitter(new Refused(), id -> id.equals("flink-joiner-0-1"));
        var thrown = assertThrows(SuppressRestartsException.class, () -> committer.commit(List.of(asked)));
        assertTrue(thrown.getCause().getMessage().startsWith("Kafka aborted transaction flink-joiner-0-1"));
        assertEquals(List.of(), asked.failed);
    }

    @Test
    void oneThatWasCommittedBeforeTheRestartIsLeftAtThat() throws Exception {
        Asked asked = new Asked();
        new LosslessCommitter(new Refused(), id -> false).commit(List.of(asked));
        assertEquals(1, asked.failed.size());
    }
}
