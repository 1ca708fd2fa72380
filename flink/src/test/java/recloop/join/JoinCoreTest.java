package recloop.join;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import rec.events.v1.Events.Action;
import rec.events.v1.Events.ActionKind;
import rec.events.v1.Events.Barrier;
import rec.events.v1.Events.EventRecord;
import rec.events.v1.Events.FeatureSnapshot;
import rec.events.v1.Events.Heartbeat;
import rec.events.v1.Events.Impression;
import recloop.join.Output.BarrierPassed;
import recloop.join.Output.Rejected;
import recloop.join.Output.Sample;

/** The join, case by case. Window 10, bound 3, times are microseconds. */
final class JoinCoreTest {
    private static final JoinConfig CONFIG = JoinConfig.of(10, 3);

    private final long[] offsets = new long[3];
    private JoinCore core = new JoinCore(CONFIG);

    private List<String> feed(Source source, EventRecord record) {
        return core.feed(source, offsets[source.ordinal()]++, record.toByteArray()).stream()
                .map(JoinCoreTest::told)
                .toList();
    }

    private static String told(Output output) {
        if (output instanceof Sample sample) {
            return (sample.positive() ? "positive " : "negative ") + sample.rows();
        }
        if (output instanceof Rejected row) {
            return row.reason().wire + " " + row.source().lower() + " " + row.items();
        }
        return "barrier " + ((BarrierPassed) output).barrierId();
    }

    /** Everything that follows when each input has seen this time. */
    private List<String> heartbeats(long at) {
        List<String> said = new ArrayList<>();
        for (Source source : Source.values()) {
            said.addAll(feed(
                    source,
                    EventRecord.newBuilder()
                            .setHeartbeat(Heartbeat.newBuilder().setOccurredAt(Times.fromUs(at)))
                            .build()));
        }
        return said;
    }

    private static EventRecord snapshot(String request, long at, long... items) {
        return EventRecord.newBuilder()
                .setSnapshot(FeatureSnapshot.newBuilder()
                        .setEventId(request + ":scored:" + at)
                        .setRequestId(request)
                        .setOccurredAt(Times.fromUs(at))
                        .setItemIds(ShownRows.uint64s(items))
                        .setScores(ByteString.copyFrom(new byte[4 * items.length]))
                        .setItemFeatures(ByteString.copyFrom(new byte[8 * items.length])))
                .build();
    }

    private static EventRecord impression(String request, long at, long... items) {
        Impression.Builder shown = Impression.newBuilder()
                .setEventId(request + ":shown:" + at)
                .setRequestId(request)
                .setOccurredAt(Times.fromUs(at));
        for (long item : items) {
            shown.addItemIds(item);
        }
        return EventRecord.newBuilder().setImpression(shown).build();
    }

    private static EventRecord click(String request, long at, long item) {
        return EventRecord.newBuilder()
                .setAction(Action.newBuilder()
                        .setEventId(request + ":" + item)
                        .setRequestId(request)
                        .setOccurredAt(Times.fromUs(at))
                        .setItemId(item)
                        .setKind(ActionKind.ACTION_KIND_CLICK))
                .build();
    }

    private static EventRecord barrier(String id, long at) {
        return EventRecord.newBuilder()
                .setBarrier(Barrier.newBuilder().setBarrierId(id).setOccurredAt(Times.fromUs(at)))
                .build();
    }

    private void shown() {
        assertEquals(List.of(), feed(Source.SNAPSHOTS, snapshot("r", 100, 1, 2, 3)));
        assertEquals(List.of(), feed(Source.IMPRESSIONS, impression("r", 104, 1, 2, 3)));
    }

    @Test
    void aClickIsSaidAtOnceAndTheRestWhenTheWindowHasPassed() {
        shown();
        assertEquals(List.of("positive 1"), feed(Source.ACTIONS, click("r", 106, 2)));
        assertEquals(List.of(), heartbeats(117));
        assertEquals(List.of("negative 2"), heartbeats(118));
    }

    @Test
    void aClickAtExactlyTheWindowsEndCountsAndOneLaterDoesNot() {
        shown();
        assertEquals(List.of("positive 1"), feed(Source.ACTIONS, click("r", 114, 1)));
        assertEquals(List.of("after_window actions 0"), feed(Source.ACTIONS, click("r", 115, 2)));
    }

    @Test
    void aClickBeforeItsImpressionAndBeforeItsSnapshotWaitsForBoth() {
        assertEquals(List.of(), feed(Source.ACTIONS, click("r", 106, 2)));
        assertEquals(List.of(), feed(Source.IMPRESSIONS, impression("r", 104, 1, 2)));
        assertEquals(List.of("positive 1"), feed(Source.SNAPSHOTS, snapshot("r", 100, 1, 2)));
    }

    @Test
    void aRepeatSaysNothingAndAnotherClickOnTheItemSaysWhyNot() {
        shown();
        assertEquals(List.of("positive 1"), feed(Source.ACTIONS, click("r", 106, 2)));
        assertEquals(List.of(), feed(Source.ACTIONS, click("r", 106, 2)));
        assertEquals(List.of("already_labelled actions 0"), feed(Source.ACTIONS, click("r", 107, 2)));
    }

    @Test
    void lateIsWhatLiesBelowTheBoundOfItsOwnInput() {
        shown();
        assertEquals(List.of(), feed(Source.IMPRESSIONS, impression("later", 110, 1)));
        assertEquals(List.of(), feed(Source.IMPRESSIONS, impression("at", 107, 1)));
        assertEquals(List.of("late impressions 1"), feed(Source.IMPRESSIONS, impression("below", 106, 1)));
        assertEquals(List.of("positive 1"), feed(Source.ACTIONS, click("r", 104, 2)));
    }

    @Test
    void anItemThatWasNotScoredAndAnImpressionWithoutSnapshotAreNamed() {
        feed(Source.SNAPSHOTS, snapshot("r", 100, 1));
        assertEquals(
                List.of("not_in_snapshot impressions 1"), feed(Source.IMPRESSIONS, impression("r", 104, 1, 7)));
        assertEquals(List.of("not_in_snapshot actions 0"), feed(Source.ACTIONS, click("r", 105, 7)));
        feed(Source.IMPRESSIONS, impression("lost", 104, 1, 2));
        assertEquals(List.of("negative 1", "snapshot_lost impressions 2"), heartbeats(200));
    }

    @Test
    void aSecondImpressionIsRefusedAndItsRepeatIsARepeat() {
        shown();
        assertEquals(List.of("second_impression impressions 1"), feed(Source.IMPRESSIONS, impression("r", 105, 1)));
        assertEquals(List.of(), feed(Source.IMPRESSIONS, impression("r", 105, 1)));
    }

    @Test
    void aBarrierOnEveryInputClosesWhatIsOpenOnce() {
        shown();
        feed(Source.SNAPSHOTS, barrier("b", 110));
        feed(Source.IMPRESSIONS, barrier("b", 110));
        assertEquals(List.of("negative 3", "barrier b"), feed(Source.ACTIONS, barrier("b", 110)));
        assertEquals(List.of(), feed(Source.ACTIONS, barrier("b", 110)));
    }

    @Test
    void bytesThatAreNoEventAreMalformedAndMoveNoClock() {
        List<Output> said = core.feed(Source.ACTIONS, 0, "not an event".getBytes(StandardCharsets.UTF_8));
        Rejected row = (Rejected) said.get(0);
        assertEquals(Reason.MALFORMED, row.reason());
        assertEquals("record=12 bytes: an EventRecord", row.detail());
        assertEquals(Times.NEVER_US, core.watermarkUs());
    }

    @Test
    void anOffsetThatDoesNotGrowIsRefused() {
        core.feed(Source.ACTIONS, 5, click("r", 1, 1).toByteArray());
        assertThrows(
                IllegalStateException.class,
                () -> core.feed(Source.ACTIONS, 5, click("r", 1, 1).toByteArray()));
    }

    @Test
    void aFullStateFailsByName() {
        core = new JoinCore(new JoinConfig(10, 3, 10, CONFIG.labels(), 2, 100));
        shown();
        StateFull error = assertThrows(StateFull.class, () -> feed(Source.ACTIONS, click("r", 106, 2)));
        assertTrue(error.getMessage().startsWith("the join holds 3 events of one partition, allowed are 2"));
    }

    @Test
    void nothingIsHeldWhenEverythingHasPassed() {
        shown();
        feed(Source.ACTIONS, click("r", 106, 2));
        feed(Source.ACTIONS, click("orphan", 106, 2));
        assertEquals(4, core.heldEvents());
        assertEquals(List.of("no_impression actions 0", "negative 2"), heartbeats(1000));
        assertEquals(0, core.heldEvents());
    }

    @Test
    void aStateThatWentThroughBytesGoesOnAsIfItHadNot() throws IOException {
        feed(Source.ACTIONS, click("r", 106, 2));
        core = Lines.throughBytes(core);
        feed(Source.IMPRESSIONS, impression("r", 104, 1, 2, 3));
        feed(Source.SNAPSHOTS, barrier("b", 50));
        core = Lines.throughBytes(core);
        assertEquals(List.of("positive 1"), feed(Source.SNAPSHOTS, snapshot("r", 103, 1, 2, 3)));
        core = Lines.throughBytes(core);
        assertEquals(List.of(), feed(Source.ACTIONS, click("r", 106, 2)));
        assertEquals(CONFIG, core.config());
        assertEquals(List.of("negative 2"), heartbeats(118));
    }

    @Test
    void contradictionsAreRefusedAllAtOnce() {
        InvalidInput error = assertThrows(
                InvalidInput.class,
                () -> new JoinConfig(0, -1, 5, List.of(new LabelRule(99, 2, 7)), 1, 1));
        List<String> bad =
                List.of("window_us=0", "bound_us=-1", "labels.kind=99", "labels.label=2", "labels.window_us=7");
        for (String field : bad) {
            assertTrue(error.getMessage().contains(field), error.getMessage());
        }
    }
}
