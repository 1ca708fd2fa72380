package recloop.join;

import java.io.IOException;
import java.util.Collection;
import java.util.List;
import java.util.function.LongSupplier;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.connector.kafka.sink.KafkaCommittable;
import org.apache.flink.connector.kafka.sink.KafkaWriterState;
import org.apache.flink.connector.kafka.sink.TwoPhaseCommittingStatefulSink.PrecommittingStatefulSinkWriter;

/**
 * Writes as Flink's writer does, but promises no transaction to a checkpoint that Kafka may have aborted, or may abort
 * before it is committed: none that is older than half of its timeout. A process that was frozen would: when all of its
 * records had been acknowledged before, nothing tells it that they are gone. Failing here, before the checkpoint is
 * complete, the job goes on from the one before and says them again.
 */
final class LosslessWriter
        implements PrecommittingStatefulSinkWriter<OutRecord, KafkaWriterState, KafkaCommittable> {
    private static final long NANOS_PER_MS = 1_000_000;

    private final PrecommittingStatefulSinkWriter<OutRecord, KafkaWriterState, KafkaCommittable> writer;
    private final long timeoutMs;
    private final LongSupplier nanos;
    /** When the open transaction began, or a little earlier. */
    private long beganNanos;

    /** {@code nanos}: a clock that goes on while the process does not. */
    LosslessWriter(
            PrecommittingStatefulSinkWriter<OutRecord, KafkaWriterState, KafkaCommittable> writer,
            long timeoutMs,
            LongSupplier nanos) {
        this.writer = writer;
        this.timeoutMs = timeoutMs;
        this.nanos = nanos;
        this.beganNanos = nanos.getAsLong();
    }

    @Override
    public Collection<KafkaCommittable> prepareCommit() throws IOException, InterruptedException {
        long ageMs = (nanos.getAsLong() - beganNanos) / NANOS_PER_MS;
        if (ageMs > timeoutMs / 2) {
            throw new IOException("the open transaction is " + ageMs + " ms old, more than half of its timeout ("
                    + timeoutMs + " ms): Kafka may have aborted it; going on from the last checkpoint");
        }
        return writer.prepareCommit();
    }

    /** The next transaction begins. */
    @Override
    public List<KafkaWriterState> snapshotState(long checkpointId) throws IOException {
        long nowNanos = nanos.getAsLong();
        List<KafkaWriterState> state = writer.snapshotState(checkpointId);
        beganNanos = nowNanos;
        return state;
    }

    @Override
    public void write(OutRecord record, Context context) throws IOException, InterruptedException {
        writer.write(record, context);
    }

    @Override
    public void flush(boolean endOfInput) throws IOException, InterruptedException {
        writer.flush(endOfInput);
    }

    @Override
    public void writeWatermark(Watermark watermark) throws IOException, InterruptedException {
        writer.writeWatermark(watermark);
    }

    @Override
    public void close() throws Exception {
        writer.close();
    }
}
