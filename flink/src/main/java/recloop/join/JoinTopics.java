package recloop.join;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.NewTopic;

/** What must be true of the topics before the job starts; creates the outputs that are missing. */
final class JoinTopics {
    private static final int TIMEOUT_S = 10;
    static final int MAX_RECORD_BYTES = 8 * 1024 * 1024;

    private JoinTopics() {}

    /** Inputs exist and are co-partitioned; a sample of partition p has a partition p to go to. */
    static void prepare(String bootstrap, Outgoing topics) {
        Map<String, Object> settings = new HashMap<>();
        settings.put(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(AdminClientConfig.DEFAULT_API_TIMEOUT_MS_CONFIG, TIMEOUT_S * 1000);
        settings.put(AdminClientConfig.REQUEST_TIMEOUT_MS_CONFIG, TIMEOUT_S * 500);
        try (Admin admin = Admin.create(settings)) {
            Map<String, Integer> partitions = partitions(admin, topics);
            List<String> bad = new ArrayList<>();
            for (String input : topics.inputs()) {
                if (!partitions.containsKey(input)) {
                    bad.add(InvalidInput.violation("topic", input, "an input that exists"));
                }
            }
            int wanted = partitions.getOrDefault(topics.inputs().get(0), 1);
            for (String topic : List.of(topics.inputs().get(1), topics.inputs().get(2), topics.samples())) {
                int count = partitions.getOrDefault(topic, wanted);
                if (count != wanted) {
                    bad.add(InvalidInput.violation(
                            "partitions of " + topic, count, wanted + ", as " + topics.inputs().get(0)));
                }
            }
            if (!bad.isEmpty()) {
                throw new InvalidInput(bad);
            }
            create(admin, topics, partitions, wanted);
        } catch (ExecutionException | TimeoutException error) {
            String why = error.getCause() == null ? "no answer" : error.getCause().getMessage();
            String violation = InvalidInput.violation("bootstrap", bootstrap, "a Kafka that answers: " + why);
            throw new InvalidInput(List.of(violation));
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while looking at the topics", error);
        } catch (org.apache.kafka.common.KafkaException error) {
            String why = error.getCause() == null ? error.getMessage() : error.getCause().getMessage();
            throw new InvalidInput(List.of(InvalidInput.violation("bootstrap", bootstrap, why)));
        }
    }

    private static Map<String, Integer> partitions(Admin admin, Outgoing topics)
            throws ExecutionException, InterruptedException, TimeoutException {
        Set<String> wanted = new LinkedHashSet<>(topics.inputs());
        wanted.addAll(topics.outputs());
        wanted.retainAll(admin.listTopics().names().get(TIMEOUT_S, TimeUnit.SECONDS));
        Map<String, Integer> partitions = new HashMap<>();
        admin.describeTopics(wanted)
                .allTopicNames()
                .get(TIMEOUT_S, TimeUnit.SECONDS)
                .forEach((name, topic) -> partitions.put(name, topic.partitions().size()));
        return partitions;
    }

    private static void create(Admin admin, Outgoing topics, Map<String, Integer> partitions, int samplePartitions)
            throws ExecutionException, InterruptedException, TimeoutException {
        Map<String, String> config = Map.of("max.message.bytes", String.valueOf(MAX_RECORD_BYTES));
        List<NewTopic> missing = new ArrayList<>();
        for (String topic : topics.outputs()) {
            if (!partitions.containsKey(topic)) {
                int count = topic.equals(topics.samples()) ? samplePartitions : 1;
                missing.add(new NewTopic(topic, count, (short) -1).configs(config));
            }
        }
        admin.createTopics(missing).all().get(TIMEOUT_S, TimeUnit.SECONDS);
    }
}
