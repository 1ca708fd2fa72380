package recloop.join;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.flink.connector.kafka.sink.KafkaCommittable;
import org.apache.flink.connector.kafka.sink.KafkaWriterState;
import org.apache.flink.connector.kafka.sink.TwoPhaseCommittingStatefulSink.PrecommittingStatefulSinkWriter;
import org.junit.jupiter.api.Test;

final class LosslessWriterTest {
    private static final int TIMEOUT_MS = 8_000;

    private long nowMs = 100;
    private final LosslessWriter writer =
            new LosslessWriter(new Promises(), TIMEOUT_MS, () -> TimeUnit.MILLISECONDS.toNanos(nowMs));

    /** A writer that promises whatever it is asked for. */
    private static final class Promises
            implements PrecommittingStatefulSinkWriter<OutRecord, KafkaWriterState, KafkaCommittable> {
        @Override
        public Collection<KafkaCommittable> prepareCommit() {
            return List.of(new KafkaCommittable(1, (short) 0, "flink-joiner-0-1", null));
        }

        @Override
        public List<KafkaWriterState> snapshotState(long checkpointId) {
            return List.of();
        }

        @Override
        public void write(OutRecord record, Context context) {}

        @Override
        public void flush(boolean endOfInput) {}

        @Override
        public void close() {}
    }

    @Test
    void aTransactionIsPromisedUntilHalfOfItsTimeout() throws Exception {
        nowMs += TIMEOUT_MS / 2;
        assertEquals(1, writer.prepareCommit().size());
        nowMs += 1;
        IOException thrown = assertThrows(IOException.class, writer::prepareCommit);
        assertTrue(thrown.getMessage().startsWith("the open transaction is 4001 ms old"), thrown.getMessage());
    }

    @Test
    void eachCheckpointBeginsAnother() throws Exception {
        for (int checkpoint = 1; checkpoint < 5; checkpoint++) {
            nowMs += TIMEOUT_MS / 2 - 1;
            assertEquals(1, writer.prepareCommit().size());
            writer.snapshotState(checkpoint);
        }
    }
}
