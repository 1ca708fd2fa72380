package recloop.join;

import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.StringJoiner;
import java.util.TreeMap;
import org.apache.flink.api.common.JobExecutionResult;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.LocalStreamEnvironment;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * The sample join as a Flink job: three topics in, keyed by partition, one join per key, samples and rejected records
 * out, exactly once (offsets and state in checkpoints, outputs in transactions that a checkpoint commits).
 *
 * <p>{@code java -jar} runs it in this process and goes on from the newest checkpoint; {@code flink run} submits it.
 */
public final class JoinJob {
    private static final int RESTARTS_A_MINUTE = 3;
    private static final int KEPT_CHECKPOINTS = 2;

    private JoinJob() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0 && arguments[0].equals("--help")) {
            System.out.println(JoinOptions.USAGE);
            return;
        }
        long began = System.nanoTime();
        JoinOptions options;
        try {
            options = JoinOptions.parse(arguments);
            JoinTopics.prepare(options.bootstrap(), options.topics());
        } catch (InvalidInput error) {
            System.err.println("flink-join: " + error.getMessage());
            System.exit(2);
            return;
        }
        StreamExecutionEnvironment environment = environment(options);
        build(environment, options);
        if (!(environment instanceof LocalStreamEnvironment)) {
            environment.execute("recloop-join");
            return;
        }
        try {
            JobExecutionResult result = environment.execute("recloop-join");
            System.out.println(summary(result, (System.nanoTime() - began) / 1e9));
            System.exit(0);
        } catch (Exception error) {
            System.err.println("flink-join: " + reason(error));
            System.exit(1);
        }
    }

    /** On a cluster its own settings hold, beside what the job needs; in this process everything is set here. */
    private static StreamExecutionEnvironment environment(JoinOptions options) {
        Configuration settings = new Configuration();
        settings.set(PipelineOptions.OBJECT_REUSE, true);
        // The state is objects on the heap, written as a whole into each checkpoint.
        settings.set(StateBackendOptions.STATE_BACKEND, "hashmap");
        settings.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofMillis(options.checkpointIntervalMs()));
        if (options.checkpointDir() != null) {
            settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, options.checkpointDir());
        }
        settings.set(
                CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION,
                ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION);
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment(settings);
        if (environment instanceof LocalStreamEnvironment) {
            settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, options.localCheckpointDir());
            settings.set(CheckpointingOptions.MAX_RETAINED_CHECKPOINTS, KEPT_CHECKPOINTS);
            settings.set(RestartStrategyOptions.RESTART_STRATEGY, "failure-rate");
            settings.set(
                    RestartStrategyOptions.RESTART_STRATEGY_FAILURE_RATE_MAX_FAILURES_PER_INTERVAL, RESTARTS_A_MINUTE);
            Optional<String> newest =
                    options.fresh() ? Optional.empty() : Checkpoints.newest(options.localCheckpointDir());
            newest.ifPresent(checkpoint -> {
                System.err.println("flink-join: goes on from " + checkpoint);
                settings.set(StateRecoveryOptions.SAVEPOINT_PATH, checkpoint);
            });
            environment = StreamExecutionEnvironment.getExecutionEnvironment(settings);
        }
        environment.setParallelism(options.parallelism());
        return environment;
    }

    private static void build(StreamExecutionEnvironment environment, JoinOptions options) {
        environment
                .fromSource(source(options), WatermarkStrategy.noWatermarks(), "inputs")
                .uid("inputs")
                .keyBy(record -> record.partition, TypeInformation.of(Integer.class))
                .process(new JoinFunction(options.config(), options.topics()))
                .returns(OutRecord.class)
                .uid("join")
                .name("join")
                .sinkTo(sink(options))
                .uid("outputs")
                .name("outputs");
    }

    private static KafkaSource<InRecord> source(JoinOptions options) {
        KafkaSourceBuilder<InRecord> source = KafkaSource.<InRecord>builder()
                .setBootstrapServers(options.bootstrap())
                .setTopics(options.topics().inputs())
                .setGroupId(options.group())
                // Without a checkpoint there is no state, and the state begins with the log.
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(new InRecords(options.topics().inputs()))
                .setProperty("isolation.level", "read_committed")
                .setProperty("fetch.max.bytes", String.valueOf(4 * JoinTopics.MAX_RECORD_BYTES));
        if (options.bounded()) {
            return source.setBounded(OffsetsInitializer.latest()).build();
        }
        // The number of partitions is part of the contract: it does not change under a running job.
        return source.setProperty("partition.discovery.interval.ms", "-1").build();
    }

    private static LosslessSink sink(JoinOptions options) {
        KafkaSink<OutRecord> sink = KafkaSink.<OutRecord>builder()
                .setBootstrapServers(options.bootstrap())
                .setRecordSerializer(new OutRecords(options.topics().outputs()))
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(options.group())
                // A bounded set of transactional ids; after a crash the open ones are found and aborted.
                .setTransactionNamingStrategy(TransactionNamingStrategy.POOLING)
                .setProperty("transaction.timeout.ms", String.valueOf(options.transactionTimeoutMs()))
                .setProperty("max.request.size", String.valueOf(2 * JoinTopics.MAX_RECORD_BYTES))
                .setProperty("batch.size", String.valueOf(1 << 17))
                .setProperty("linger.ms", "10")
                .build();
        return new LosslessSink(sink, options.bootstrap(), options.transactionTimeoutMs());
    }

    /** One line of JSON: what was counted since this process began, and what it took. */
    private static String summary(JobExecutionResult result, double seconds) {
        StringJoiner fields = new StringJoiner(", ", "{", "}");
        Map<String, Object> totals = new TreeMap<>(result.getAllAccumulatorResults());
        totals.forEach((name, total) -> fields.add("\"" + name + "\": " + total));
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        fields.add(String.format(Locale.ROOT, "\"job_s\": %.3f", result.getNetRuntime() / 1e3));
        fields.add(String.format(Locale.ROOT, "\"process_s\": %.3f", seconds));
        fields.add(String.format(Locale.ROOT, "\"cpu_s\": %.3f", system.getProcessCpuTime() / 1e9));
        return fields.toString();
    }

    /** What lies at the bottom of Flink's chain of exceptions. */
    private static String reason(Throwable error) {
        Throwable root = error;
        while (root.getCause() != null) {
            root = root.getCause();
        }
        return root.getClass().getSimpleName() + ": " + root.getMessage();
    }
}
