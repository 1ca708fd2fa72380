package recloop.join;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.List;
import rec.events.v1.Events.Barrier;
import rec.events.v1.Events.SampleRecord;
import recloop.join.Output.BarrierPassed;
import recloop.join.Output.Rejected;
import recloop.join.Output.Sample;

/**
 * From a join's outputs to Kafka records: which topic, key, partition and headers. As services/joiner/outgoing.py.
 *
 * @param inputs topics in the order of {@link Source}
 */
public record Outgoing(List<String> inputs, String samples, String lateEvents, String deadLetters)
        implements Serializable {

    /** The topics that the join writes. */
    List<String> outputs() {
        return List.of(samples, lateEvents, deadLetters);
    }

    /**
     * The record of one output.
     *
     * @param partition of the join
     * @param key of the input record that caused it
     * @param joinedUs wall time
     */
    OutRecord of(Output output, int partition, byte[] key, long joinedUs) {
        if (output instanceof Rejected row) {
            return rejected(row, partition, key);
        }
        if (output instanceof BarrierPassed passed) {
            Barrier barrier = Barrier.newBuilder()
                    .setBarrierId(passed.barrierId())
                    .setOccurredAt(Times.fromUs(passed.occurredUs()))
                    .build();
            byte[] value = SampleRecord.newBuilder().setBarrier(barrier).build().toByteArray();
            return new OutRecord(samples, partition, null, value);
        }
        var message = ((Sample) output).message().toBuilder().setJoinedAt(Times.fromUs(joinedUs));
        byte[] value = SampleRecord.newBuilder().setSample(message).build().toByteArray();
        return new OutRecord(samples, partition, bytes(message.getRequestId()), value);
    }

    private OutRecord rejected(Rejected row, int partition, byte[] key) {
        boolean malformed = row.reason() == Reason.MALFORMED;
        OutRecord record = new OutRecord(
                malformed ? deadLetters : lateEvents,
                OutRecord.BY_KEY,
                malformed ? key : bytes(row.requestId()),
                row.raw());
        record.with("reason", row.reason().wire)
                .with("origin-topic", inputs.get(row.source().ordinal()))
                .with("origin-partition", partition)
                .with("origin-offset", row.offset())
                .with("items", row.items());
        if (!row.itemIds().isEmpty()) {
            record.with("item-ids", row.itemIds().toByteArray());
        }
        return row.detail().isEmpty() ? record : record.with("detail", row.detail());
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
