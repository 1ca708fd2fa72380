package recloop.join;

import java.util.List;
import java.util.Optional;
import java.util.Properties;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetIdentifier;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacetProvider;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Samples go to the partition of their inputs, rejected records to that of their key. */
final class OutRecords implements KafkaRecordSerializationSchema<OutRecord>, KafkaDatasetFacetProvider {
    private final List<String> topics;

    /** {@code topics} are all that may be written: a restart looks there for transactions left open. */
    OutRecords(List<String> topics) {
        this.topics = topics;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(OutRecord record, KafkaSinkContext context, Long timestamp) {
        Integer partition = record.partition == OutRecord.BY_KEY ? null : record.partition;
        ProducerRecord<byte[], byte[]> sent =
                new ProducerRecord<>(record.topic, partition, record.key, record.value);
        for (int k = 0; k < record.headerNames.length; k++) {
            sent.headers().add(record.headerNames[k], record.headerValues[k]);
        }
        return sent;
    }

    @Override
    public Optional<KafkaDatasetFacet> getKafkaDatasetFacet() {
        return Optional.of(
                new DefaultKafkaDatasetFacet(DefaultKafkaDatasetIdentifier.ofTopics(topics), new Properties()));
    }
}
