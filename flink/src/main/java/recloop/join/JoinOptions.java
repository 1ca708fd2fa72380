package recloop.join;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import rec.events.v1.Events.ActionKind;

/**
 * What the command line says. Every bad option is reported at once ({@link InvalidInput}).
 *
 * @param bootstrap host:port of Kafka
 * @param config the rules of the join
 * @param topics inputs and outputs
 * @param group consumer group, and prefix of the transactional ids: two jobs that run at once need two
 * @param checkpointDir where checkpoints are kept, a URI; null where a cluster's own setting holds
 * @param checkpointIntervalMs time between them: outputs become visible with each
 * @param transactionTimeoutMs how long the broker keeps an open transaction: longer than a restart takes
 * @param parallelism tasks per operator; above the number of partitions it has no use
 * @param bounded reads what stands on the topics at start, then ends
 * @param fresh begins at the start of the topics even if there is a checkpoint
 */
record JoinOptions(
        String bootstrap,
        JoinConfig config,
        Outgoing topics,
        String group,
        String checkpointDir,
        long checkpointIntervalMs,
        long transactionTimeoutMs,
        int parallelism,
        boolean bounded,
        boolean fresh) {
    static final String USAGE =
            """
            java -jar recloop-join.jar --bootstrap host:port [options]
              --window-ms 20000           event time after an impression in which an action labels it
              --show-within-ms            event time from a request to its impression (default: the window)
              --bound-ms 2000             disorder bound, event time
              --labels click:1            kind:label[:window-ms], separated by commas; click, like, hide, purchase
              --max-held-events 2000000   events of one partition in memory; beyond it the job fails
              --input-prefix ""           before feature-snapshots, impressions and actions
              --snapshots, --impressions, --actions     or their names, one by one
              --samples samples-flink     --late-events late-events-flink     --dead-letters dead-letters-flink
              --group flink-joiner        consumer group and prefix of the transactional ids
              --checkpoint-dir out/flink/checkpoints    folder or URI; on a cluster: as it is configured there
              --checkpoint-interval-ms 1000             outputs become visible with each checkpoint
              --transaction-timeout-ms 600000           at most the broker's transaction.max.timeout.ms
              --parallelism 1
              --bounded                   reads what stands on the topics at start, then ends
              --fresh                     begins anew even if there is a checkpoint""";

    private static final Set<String> FLAGS = Set.of("bounded", "fresh");
    private static final Set<String> NAMES = Set.of(
            "bootstrap", "window-ms", "show-within-ms", "bound-ms", "labels", "max-held-events", "input-prefix",
            "snapshots", "impressions", "actions", "samples", "late-events", "dead-letters", "group",
            "checkpoint-dir", "checkpoint-interval-ms", "transaction-timeout-ms", "parallelism");

    /** Reads a command line. */
    static JoinOptions parse(String... arguments) {
        return new Parser(arguments).options();
    }

    /** Gathers what is wrong while it reads. */
    private static final class Parser {
        private final Map<String, String> given = new HashMap<>();
        private final Set<String> flags = new HashSet<>();
        private final List<String> bad = new ArrayList<>();

        Parser(String... arguments) {
            for (int k = 0; k < arguments.length; k++) {
                String name = arguments[k].startsWith("--") ? arguments[k].substring(2) : "";
                if (FLAGS.contains(name)) {
                    flags.add(name);
                } else if (!NAMES.contains(name)) {
                    bad.add(InvalidInput.violation("option", arguments[k], "one of --help"));
                } else if (k + 1 == arguments.length) {
                    bad.add(InvalidInput.violation("--" + name, "", "a value after it"));
                } else {
                    given.put(name, arguments[++k]);
                }
            }
        }

        JoinOptions options() {
            String bootstrap = text("bootstrap", "");
            if (!bootstrap.matches("[^:,\\s]+:\\d+(,[^:,\\s]+:\\d+)*")) {
                bad.add(InvalidInput.violation("--bootstrap", bootstrap, "host:port of Kafka"));
            }
            long windowMs = number("window-ms", 20_000, 1, JoinConfig.MAX_WINDOW_US / 1000);
            long showMs = number("show-within-ms", windowMs, 1, JoinConfig.MAX_WINDOW_US / 1000);
            long boundMs = number("bound-ms", 2_000, 0, JoinConfig.MAX_WINDOW_US / 1000);
            int held = (int) number("max-held-events", JoinConfig.MAX_HELD_EVENTS, 1, Integer.MAX_VALUE);
            long intervalMs = number("checkpoint-interval-ms", 1_000, 10, 3_600_000);
            long timeoutMs = number("transaction-timeout-ms", 600_000, 1_000, Integer.MAX_VALUE);
            if (2 * intervalMs > timeoutMs) {
                bad.add(InvalidInput.violation(
                        "--checkpoint-interval-ms",
                        intervalMs,
                        "at most half of --transaction-timeout-ms " + timeoutMs));
            }
            int parallelism = (int) number("parallelism", 1, 1, 128);
            List<LabelRule> labels = labels(windowMs * 1000);
            String prefix = text("input-prefix", "");
            Outgoing topics = new Outgoing(
                    List.of(
                            text("snapshots", prefix + "feature-snapshots"),
                            text("impressions", prefix + "impressions"),
                            text("actions", prefix + "actions")),
                    text("samples", "samples-flink"),
                    text("late-events", "late-events-flink"),
                    text("dead-letters", "dead-letters-flink"));
            checkTopics(topics);
            if (!bad.isEmpty()) {
                throw new InvalidInput(bad);
            }
            JoinConfig config = new JoinConfig(
                    windowMs * 1000, boundMs * 1000, showMs * 1000, labels, held, JoinConfig.MAX_ITEMS);
            return new JoinOptions(
                    bootstrap,
                    config,
                    topics,
                    text("group", "flink-joiner"),
                    given.containsKey("checkpoint-dir") ? uri(given.get("checkpoint-dir")) : null,
                    intervalMs,
                    timeoutMs,
                    parallelism,
                    flags.contains("bounded"),
                    flags.contains("fresh"));
        }

        private String text(String name, String otherwise) {
            return given.getOrDefault(name, otherwise);
        }

        private long number(String name, long otherwise, long least, long most) {
            String value = given.get(name);
            if (value == null) {
                return otherwise;
            }
            try {
                long number = Long.parseLong(value);
                if (least <= number && number <= most) {
                    return number;
                }
            } catch (NumberFormatException error) {
                // Reported like a number out of range.
            }
            bad.add(InvalidInput.violation("--" + name, value, least + " to " + most));
            return otherwise;
        }

        private List<LabelRule> labels(long windowUs) {
            List<LabelRule> labels = new ArrayList<>();
            for (String rule : text("labels", "click:1").split(",")) {
                String[] parts = rule.split(":");
                try {
                    String kind = "ACTION_KIND_" + parts[0].toUpperCase(Locale.ROOT);
                    labels.add(new LabelRule(
                            ActionKind.valueOf(kind).getNumber(),
                            parts.length > 1 ? Float.parseFloat(parts[1]) : 1,
                            parts.length > 2 ? Long.parseLong(parts[2]) * 1000 : windowUs));
                } catch (IllegalArgumentException error) {
                    bad.add(InvalidInput.violation("--labels", rule, "kind:label[:window-ms] of a known kind"));
                }
            }
            return labels;
        }

        private void checkTopics(Outgoing topics) {
            List<String> all = new ArrayList<>(topics.inputs());
            all.addAll(topics.outputs());
            for (String topic : all) {
                if (!topic.matches("[a-zA-Z0-9._-]{1,249}")) {
                    bad.add(InvalidInput.violation("topic", topic, "a name that Kafka allows"));
                }
            }
            if (new HashSet<>(all).size() < all.size()) {
                bad.add(InvalidInput.violation("topics", all, "six different ones"));
            }
        }

    }

    /** Where a run in this process keeps its checkpoints. */
    String localCheckpointDir() {
        return checkpointDir == null ? uri("out/flink/checkpoints") : checkpointDir;
    }

    private static String uri(String folder) {
        return folder.contains("://") || folder.startsWith("file:")
                ? folder
                : Path.of(folder).toAbsolutePath().normalize().toUri().toString();
    }
}
