package recloop.join;

import com.google.protobuf.ByteString;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Stream;
import rec.events.v1.Events.Action;
import rec.events.v1.Events.Barrier;
import rec.events.v1.Events.EventRecord;
import rec.events.v1.Events.FeatureSnapshot;
import rec.events.v1.Events.Impression;
import recloop.join.Held.Acted;
import recloop.join.Held.Chained;
import recloop.join.Held.Key;
import recloop.join.Held.Shown;
import recloop.join.Held.Snap;
import recloop.join.Output.BarrierPassed;
import recloop.join.Output.Rejected;

/**
 * The join of one partition: a pure state machine without Flink, the second implementation of the rules of
 * services/contract/join.py.
 *
 * <p>Inputs are the records of one partition of three topics, each in its offset order, in any interleaving. The set of
 * everything said depends on the three logs alone: lateness, repeats and second impressions are judged by the record's
 * own input (its event clock and barrier floor at lower offsets); which events are about each other is a matter of
 * their times ({@link Rules}); the watermark (min over the inputs) only says when nothing can follow that would change
 * an outcome. Not thread-safe. No I/O, no clock, no randomness.
 */
public final class JoinCore {
    /** Barriers that may be under way at once; the oldest is dropped beyond that. */
    private static final int MAX_PENDING_BARRIERS = 256;
    /** The last barriers passed, so that their repeats stay repeats. */
    private static final int MAX_PASSED = 4;

    JoinConfig config;
    final InputClock[] clocks;
    final Matching matching;
    final ArrayDeque<String> passed;
    /** Barrier id to its time on each input, null where it has not come. */
    final LinkedHashMap<String, Long[]> barriers;

    private long watermarkUs;
    private long floorUs;

    /** From the beginning of the inputs. */
    public JoinCore(JoinConfig config) {
        this(
                config,
                Stream.of(Source.values())
                        .map(source -> new InputClock(config.boundUs(), 0, Times.NEVER_US, Times.NEVER_US))
                        .toArray(InputClock[]::new),
                new Matching(config),
                new ArrayDeque<>(),
                new LinkedHashMap<>());
    }

    /** As it was written (JoinState). */
    JoinCore(
            JoinConfig config,
            InputClock[] clocks,
            Matching matching,
            ArrayDeque<String> passed,
            LinkedHashMap<String, Long[]> barriers) {
        this.config = config;
        this.clocks = clocks;
        this.matching = matching;
        this.passed = passed;
        this.barriers = barriers;
        this.watermarkUs = lowestWatermark();
        this.floorUs = lowestFloor();
    }

    public JoinConfig config() {
        return config;
    }

    /**
     * Goes on under these settings: limits may differ from those that it was written with, rules may not.
     *
     * @throws OtherRules when they would decide otherwise
     */
    void adopt(JoinConfig now) {
        if (!now.fingerprint().equals(config.fingerprint())) {
            throw new OtherRules(config.fingerprint(), now.fingerprint());
        }
        config = now;
        matching.config = now;
    }

    /** Snapshots, impressions and actions in memory. */
    public int heldEvents() {
        return matching.heldEvents();
    }

    /** Event time in microseconds below which the partition is complete. */
    public long watermarkUs() {
        return watermarkUs;
    }

    /**
     * Takes in one record and returns what follows from it.
     *
     * @throws IllegalStateException when its offset does not grow
     * @throws StateFull when more would be held than allowed
     */
    public List<Output> feed(Source source, long offset, byte[] raw) {
        InputClock clock = clocks[source.ordinal()];
        if (offset < clock.nextOffset) {
            throw new IllegalStateException(
                    source.lower() + ": offset " + offset + " is out of order (next is " + clock.nextOffset + ")");
        }
        clock.nextOffset = offset + 1;
        try {
            take(source, clock, offset, Decoder.decode(source, raw, config.maxItems()), raw);
        } catch (Malformed error) {
            String detail = InvalidInput.cut(error.getMessage(), 500);
            matching.out.add(new Rejected(
                    Reason.MALFORMED, source, offset, raw, "", error.items, ByteString.EMPTY, detail));
        }
        if (matching.out.isEmpty()) {
            return List.of();
        }
        List<Output> said = matching.out;
        matching.out = new ArrayList<>();
        return said;
    }

    private void take(Source source, InputClock clock, long offset, EventRecord record, byte[] raw) {
        long occurredUs = Times.toUs(Decoder.occurredAt(record));
        switch (record.getRecordCase()) {
            case SNAPSHOT -> snapshot(clock, offset, occurredUs, record.getSnapshot(), raw);
            case IMPRESSION -> impression(clock, offset, occurredUs, record.getImpression(), raw);
            case ACTION -> action(clock, offset, occurredUs, record.getAction(), raw);
            case BARRIER -> {
                barrier(source, clock, record.getBarrier(), occurredUs);
                return;
            }
            default -> { }
        }
        if (clock.observe(occurredUs)) {
            settleClocks();
        }
    }

    private void snapshot(InputClock clock, long offset, long occurredUs, FeatureSnapshot event, byte[] raw) {
        Snap snap =
                new Snap(offset, occurredUs, clock.floorUs, event.getEventId(), event.getRequestId(), event);
        if (isNew(clock, snap, matching.snaps, Source.SNAPSHOTS, Reason.SECOND_SNAPSHOT, raw, 0)) {
            matching.addSnapshot(snap);
        }
    }

    private void impression(InputClock clock, long offset, long occurredUs, Impression event, byte[] raw) {
        int count = event.getItemIdsCount();
        long[] items = new long[count];
        int[] rowOf = new int[count];
        int[] positions = new int[count];
        for (int k = 0; k < count; k++) {
            items[k] = event.getItemIds(k);
            rowOf[k] = -1;
            positions[k] = event.getPositionsCount() == 0 ? k : event.getPositions(k);
        }
        Shown shown = new Shown(
                offset,
                occurredUs,
                clock.floorUs,
                event.getEventId(),
                event.getRequestId(),
                event.getUnscored(),
                items,
                rowOf);
        shown.positions = positions;
        shown.raw = raw;
        if (isNew(clock, shown, matching.shown, Source.IMPRESSIONS, Reason.SECOND_IMPRESSION, raw, count)) {
            matching.addImpression(shown);
        }
    }

    private void action(InputClock clock, long offset, long occurredUs, Action event, byte[] raw) {
        Acted acted = new Acted(
                offset,
                occurredUs,
                clock.floorUs,
                event.getEventId(),
                event.getRequestId(),
                event.getItemId(),
                event.getKindValue());
        acted.raw = raw;
        Acted same = matching.acts.get(acted.key);
        if (same != null && Rules.remembered(config, same.occurredUs, clock)) {
            return;
        }
        if (isLate(clock, acted)) {
            reject(Reason.LATE, Source.ACTIONS, acted, raw, 0);
        } else {
            matching.addAction(acted);
        }
    }

    /** Neither a repeat, nor late, nor the second one of its request; says why not. */
    private <T extends Chained<T>> boolean isNew(
            InputClock clock, T held, Map<String, T> heads, Source source, Reason second, byte[] raw, int items) {
        if (isRepeat(clock, heads.get(held.requestId), held.key)) {
            return false;
        }
        if (isLate(clock, held)) {
            reject(Reason.LATE, source, held, raw, items);
            return false;
        }
        for (T at = heads.get(held.requestId); at != null; at = at.older) {
            if (Rules.remembered(config, at.occurredUs, clock)) {
                // It stays until a repeat of the refused one can no longer come.
                at.holdUs = Math.max(at.holdUs, held.occurredUs + config.memoryUs());
                at.seconds.add(held.key);
                reject(second, source, held, raw, items);
                return false;
            }
        }
        return true;
    }

    private <T extends Chained<T>> boolean isRepeat(InputClock clock, T head, Key key) {
        for (T at = head; at != null; at = at.older) {
            if (at.key.equals(key) || at.seconds.contains(key)) {
                return Rules.remembered(config, key.occurredUs(), clock);
            }
        }
        return false;
    }

    private static boolean isLate(InputClock clock, Held held) {
        return held.occurredUs < clock.watermarkUs;
    }

    private void reject(Reason reason, Source source, Held held, byte[] raw, int items) {
        matching.out.add(
                new Rejected(reason, source, held.offset, raw, held.requestId, items, ByteString.EMPTY, ""));
    }

    // -- time --------------------------------------------------------------------------------------------------------

    private void barrier(Source source, InputClock clock, Barrier event, long occurredUs) {
        String id = event.getBarrierId();
        Long[] marks = barriers.get(id);
        boolean repeated = passed.contains(id) || (marks != null && marks[source.ordinal()] != null);
        clock.raiseFloor(occurredUs);
        settleClocks();
        if (repeated) {
            return;
        }
        if (marks == null) {
            marks = new Long[clocks.length];
            barriers.put(id, marks);
        }
        marks[source.ordinal()] = occurredUs;
        if (Stream.of(marks).allMatch(Objects::nonNull)) {
            barriers.remove(id);
            passed.add(id);
            if (passed.size() > MAX_PASSED) {
                passed.remove();
            }
            matching.out.add(new BarrierPassed(
                    id, Stream.of(marks).mapToLong(Long::longValue).min().orElseThrow()));
        } else if (barriers.size() > MAX_PENDING_BARRIERS) {
            Iterator<String> oldest = barriers.keySet().iterator();
            oldest.next();
            oldest.remove();
        }
    }

    private long lowestWatermark() {
        return Stream.of(clocks).mapToLong(clock -> clock.watermarkUs).min().orElseThrow();
    }

    private long lowestFloor() {
        return Stream.of(clocks).mapToLong(clock -> clock.floorUs).min().orElseThrow();
    }

    private void settleClocks() {
        long floorNow = lowestFloor();
        long watermarkNow = lowestWatermark();
        if (floorNow > floorUs) {
            floorUs = floorNow;
            matching.passFloor(floorNow);
        }
        if (watermarkNow > watermarkUs) {
            watermarkUs = watermarkNow;
            matching.advance(watermarkNow);
        }
    }
}
