package recloop.join;

import java.io.IOException;
import java.util.Collection;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.api.connector.sink2.CommitterInitContext;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.connector.kafka.sink.KafkaCommittable;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaWriterState;
import org.apache.flink.connector.kafka.sink.TwoPhaseCommittingStatefulSink;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.apache.flink.streaming.api.connector.sink2.CommittableMessage;
import org.apache.flink.streaming.api.connector.sink2.SupportsPostCommitTopology;
import org.apache.flink.streaming.api.datastream.DataStream;

/**
 * Flink's sink to Kafka, with two differences, both about transactions that Kafka has aborted by itself: an old one is
 * not promised to a checkpoint ({@link LosslessWriter}), and one whose checkpoint is complete ends the job, where
 * Flink's own sink goes on without the records ({@link LosslessCommitter}).
 */
final class LosslessSink
        implements TwoPhaseCommittingStatefulSink<OutRecord, KafkaWriterState, KafkaCommittable>,
                SupportsPostCommitTopology<KafkaCommittable> {
    private final KafkaSink<OutRecord> sink;
    private final String bootstrap;
    private final long timeoutMs;

    LosslessSink(KafkaSink<OutRecord> sink, String bootstrap, long timeoutMs) {
        this.sink = sink;
        this.bootstrap = bootstrap;
        this.timeoutMs = timeoutMs;
    }

    @Override
    public Committer<KafkaCommittable> createCommitter(CommitterInitContext context) throws IOException {
        return new LosslessCommitter(sink.createCommitter(context), new TransactionFate(bootstrap));
    }

    @Override
    public SimpleVersionedSerializer<KafkaCommittable> getCommittableSerializer() {
        return sink.getCommittableSerializer();
    }

    @Override
    public PrecommittingStatefulSinkWriter<OutRecord, KafkaWriterState, KafkaCommittable> createWriter(
            WriterInitContext context) throws IOException {
        return new LosslessWriter(sink.createWriter(context), timeoutMs, System::nanoTime);
    }

    @Override
    public PrecommittingStatefulSinkWriter<OutRecord, KafkaWriterState, KafkaCommittable> restoreWriter(
            WriterInitContext context, Collection<KafkaWriterState> state) throws IOException {
        return new LosslessWriter(sink.restoreWriter(context, state), timeoutMs, System::nanoTime);
    }

    @Override
    public SimpleVersionedSerializer<KafkaWriterState> getWriterStateSerializer() {
        return sink.getWriterStateSerializer();
    }

    @Override
    public void addPostCommitTopology(DataStream<CommittableMessage<KafkaCommittable>> committables) {
        sink.addPostCommitTopology(committables);
    }
}
