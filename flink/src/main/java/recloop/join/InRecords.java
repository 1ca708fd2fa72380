package recloop.join;

import java.util.List;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Kafka's records with the place where they stand. The bytes are parsed by the join: bad ones are its business. */
final class InRecords implements KafkaRecordDeserializationSchema<InRecord> {
    private final List<String> topics;

    /** {@code topics} in the order of {@link Source}. */
    InRecords(List<String> topics) {
        this.topics = topics;
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<InRecord> out) {
        Source source = Source.values()[topics.indexOf(record.topic())];
        out.collect(new InRecord(source, record.partition(), record.offset(), record.key(), record.value()));
    }

    @Override
    public TypeInformation<InRecord> getProducedType() {
        return TypeInformation.of(InRecord.class);
    }
}
