package recloop.join;

import java.util.EnumMap;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import recloop.join.Output.Rejected;
import recloop.join.Output.Sample;

/**
 * The joins of the partitions that this task has. Keyed by the Kafka partition, because lateness is a matter of one
 * partition's log; records of one (topic, partition) arrive in the order of their offsets. Watermarks follow from the
 * records themselves, so no timer of Flink is needed.
 */
public final class JoinFunction extends KeyedProcessFunction<Integer, InRecord, OutRecord> {
    private static final Source[] SOURCES = Source.values();

    private final JoinConfig config;
    private final Outgoing outgoing;
    private transient ValueState<JoinCore> state;
    /** Partitions whose state is known to follow these rules. */
    private transient Set<Integer> known;

    private transient Map<Integer, Integer> held;
    private transient Map<Reason, Counter> reasons;
    private transient Counter records;
    private transient Counter positives;
    private transient Counter negatives;

    public JoinFunction(JoinConfig config, Outgoing outgoing) {
        this.config = config;
        this.outgoing = outgoing;
    }

    @Override
    public void open(OpenContext context) {
        state = getRuntimeContext().getState(new ValueStateDescriptor<>("join", new JoinCoreSerializer()));
        known = new HashSet<>();
        held = new HashMap<>();
        MetricGroup metrics = getRuntimeContext().getMetricGroup().addGroup("join");
        records = metrics.counter("records");
        positives = metrics.counter("items_positive");
        negatives = metrics.counter("items_negative");
        reasons = new EnumMap<>(Reason.class);
        for (Reason reason : Reason.values()) {
            reasons.put(reason, metrics.counter("rejected_" + reason.wire));
        }
        metrics.gauge("held_events", () -> heldEvents());
    }

    private int heldEvents() {
        return held.values().stream().mapToInt(Integer::intValue).sum();
    }

    @Override
    public void processElement(InRecord record, Context context, Collector<OutRecord> out) throws Exception {
        JoinCore core = core(record.partition);
        records.inc();
        try {
            for (Output said : core.feed(SOURCES[record.source], record.offset, record.value)) {
                count(said);
                long joinedUs = System.currentTimeMillis() * 1000;
                out.collect(outgoing.of(said, record.partition, record.key, joinedUs));
            }
        } catch (StateFull error) {
            throw new SuppressRestartsException(error);
        }
        held.put(record.partition, core.heldEvents());
    }

    private JoinCore core(int partition) throws Exception {
        JoinCore core = state.value();
        if (core == null) {
            core = new JoinCore(config);
            state.update(core);
        }
        if (known.add(partition)) {
            try {
                core.adopt(config);
            } catch (OtherRules error) {
                throw new SuppressRestartsException(error);
            }
        }
        return core;
    }

    private void count(Output said) {
        if (said instanceof Sample sample) {
            (sample.positive() ? positives : negatives).inc(sample.rows());
        } else if (said instanceof Rejected row) {
            reasons.get(row.reason()).inc();
        }
    }

    /** Makes the counters part of the job's result, for whoever ran it to its end. */
    @Override
    public void close() {
        if (records == null) {
            return;
        }
        total("records", records);
        total("items_positive", positives);
        total("items_negative", negatives);
        reasons.forEach((reason, counter) -> total("rejected_" + reason.wire, counter));
    }

    private void total(String name, Counter counter) {
        getRuntimeContext().getLongCounter(name).add(counter.getCount());
    }
}
