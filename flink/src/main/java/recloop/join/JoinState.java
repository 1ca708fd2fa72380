package recloop.join;

import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import rec.events.v1.Events.FeatureSnapshot;
import rec.events.v1.Events.TrainingSample;
import recloop.join.Held.Acted;
import recloop.join.Held.Key;
import recloop.join.Held.Shown;
import recloop.join.Held.Snap;

/**
 * A join as bytes, for checkpoints: its rules, its clocks, and every held record in the order in which it is due. The
 * indexes (by request, pending, waiting) follow from the records and are built again.
 */
public final class JoinState {
    /** Grows with every change of the bytes; others are refused. */
    public static final int VERSION = 1;

    private JoinState() {}

    public static void write(JoinCore core, DataOutput out) throws IOException {
        out.writeInt(VERSION);
        writeConfig(core.config, out);
        for (InputClock clock : core.clocks) {
            out.writeLong(clock.nextOffset);
            out.writeLong(clock.clockUs);
            out.writeLong(clock.floorUs);
        }
        out.writeInt(core.passed.size());
        for (String id : core.passed) {
            out.writeUTF(id);
        }
        out.writeInt(core.barriers.size());
        for (Map.Entry<String, Long[]> barrier : core.barriers.entrySet()) {
            out.writeUTF(barrier.getKey());
            for (Long mark : barrier.getValue()) {
                out.writeBoolean(mark != null);
                out.writeLong(mark == null ? 0 : mark);
            }
        }
        List<Held> held = new ArrayList<>(core.matching.timers);
        held.sort(Held::byDue);
        out.writeInt(held.size());
        for (Held one : held) {
            writeHeld(one, out);
        }
    }

    public static JoinCore read(DataInput in) throws IOException {
        int version = in.readInt();
        if (version != VERSION) {
            throw new IOException("join state of version " + version + ", known is " + VERSION);
        }
        JoinConfig config = readConfig(in);
        InputClock[] clocks = new InputClock[Source.values().length];
        for (int k = 0; k < clocks.length; k++) {
            clocks[k] = new InputClock(config.boundUs(), in.readLong(), in.readLong(), in.readLong());
        }
        ArrayDeque<String> passed = new ArrayDeque<>();
        for (int k = in.readInt(); k > 0; k--) {
            passed.add(in.readUTF());
        }
        LinkedHashMap<String, Long[]> barriers = new LinkedHashMap<>();
        for (int k = in.readInt(); k > 0; k--) {
            Long[] marks = barriers.computeIfAbsent(in.readUTF(), id -> new Long[clocks.length]);
            for (int source = 0; source < marks.length; source++) {
                boolean known = in.readBoolean();
                long mark = in.readLong();
                marks[source] = known ? Long.valueOf(mark) : null;
            }
        }
        Matching matching = new Matching(config);
        readAllHeld(matching, in);
        return new JoinCore(config, clocks, matching, passed, barriers);
    }

    private static void writeConfig(JoinConfig config, DataOutput out) throws IOException {
        out.writeLong(config.windowUs());
        out.writeLong(config.boundUs());
        out.writeLong(config.showWithinUs());
        out.writeInt(config.maxHeldEvents());
        out.writeInt(config.maxItems());
        out.writeInt(config.labels().size());
        for (LabelRule rule : config.labels()) {
            out.writeInt(rule.kind());
            out.writeFloat(rule.label());
            out.writeLong(rule.windowUs());
        }
    }

    private static JoinConfig readConfig(DataInput in) throws IOException {
        long windowUs = in.readLong();
        long boundUs = in.readLong();
        long showWithinUs = in.readLong();
        int maxHeldEvents = in.readInt();
        int maxItems = in.readInt();
        List<LabelRule> labels = new ArrayList<>();
        for (int k = in.readInt(); k > 0; k--) {
            labels.add(new LabelRule(in.readInt(), in.readFloat(), in.readLong()));
        }
        return new JoinConfig(windowUs, boundUs, showWithinUs, labels, maxHeldEvents, maxItems);
    }

    // -- held records ------------------------------------------------------------------------------------------------

    private static void writeHeld(Held held, DataOutput out) throws IOException {
        Source source =
                held instanceof Snap ? Source.SNAPSHOTS : held instanceof Shown ? Source.IMPRESSIONS : Source.ACTIONS;
        out.writeByte(source.ordinal());
        out.writeLong(held.offset);
        out.writeLong(held.occurredUs);
        out.writeLong(held.floorUs);
        out.writeUTF(held.key.eventId());
        out.writeUTF(held.requestId);
        out.writeLong(held.holdUs);
        out.writeLong(held.dueUs);
        out.writeInt(held.seconds.size());
        for (Key key : held.seconds) {
            out.writeUTF(key.eventId());
            out.writeLong(key.occurredUs());
        }
        if (held instanceof Snap snap) {
            writeBytes(snap.message == null ? null : snap.message.toByteArray(), out);
        } else if (held instanceof Shown shown) {
            writeShown(shown, out);
        } else if (held instanceof Acted acted) {
            out.writeLong(acted.itemId);
            out.writeInt(acted.kind);
            out.writeBoolean(acted.pending);
            writeBytes(acted.raw, out);
        }
    }

    private static void writeShown(Shown shown, DataOutput out) throws IOException {
        out.writeBoolean(shown.unscored);
        out.writeBoolean(shown.open);
        out.writeInt(shown.items.length);
        for (int k = 0; k < shown.items.length; k++) {
            out.writeLong(shown.items[k]);
            out.writeInt(shown.rowOf[k]);
            out.writeInt(shown.positions == null ? 0 : shown.positions[k]);
        }
        out.writeBoolean(shown.positions != null);
        writeBytes(shown.raw, out);
        writeBytes(shown.rows == null ? null : shown.rows.columns.toByteArray(), out);
        writeBytes(shown.decided.toByteArray(), out);
        out.writeInt(shown.waiting.size());
        for (Acted acted : shown.waiting) {
            out.writeLong(acted.offset);
        }
    }

    /** Reads all of them and builds the indexes; a chain, and who waits, is in the order of offsets. */
    private static void readAllHeld(Matching matching, DataInput in) throws IOException {
        List<Held> all = new ArrayList<>();
        Map<Shown, long[]> waiting = new HashMap<>();
        for (int k = in.readInt(); k > 0; k--) {
            Held held = readHeld(in, waiting);
            matching.arm(held, held.dueUs);
            all.add(held);
        }
        all.sort(Comparator.comparingLong(held -> held.offset));
        Map<Long, Acted> acted = new HashMap<>();
        for (Held held : all) {
            if (held instanceof Snap snap) {
                Matching.chain(matching.snaps, snap);
            } else if (held instanceof Shown shown) {
                Matching.chain(matching.shown, shown);
            } else if (held instanceof Acted one) {
                matching.acts.put(one.key, one);
                acted.put(one.offset, one);
                if (one.pending) {
                    matching.pend(one);
                }
            }
        }
        waiting.forEach((shown, offsets) -> {
            for (long offset : offsets) {
                shown.waiting.add(acted.get(offset));
            }
        });
    }

    private static Held readHeld(DataInput in, Map<Shown, long[]> waiting) throws IOException {
        Source source = Source.values()[in.readByte()];
        long offset = in.readLong();
        long occurredUs = in.readLong();
        long floorUs = in.readLong();
        String eventId = in.readUTF();
        String requestId = in.readUTF();
        long holdUs = in.readLong();
        long dueUs = in.readLong();
        List<Key> seconds = new ArrayList<>(0);
        for (int k = in.readInt(); k > 0; k--) {
            seconds.add(new Key(in.readUTF(), in.readLong()));
        }
        Held held =
                switch (source) {
                    case SNAPSHOTS -> {
                        byte[] message = readBytes(in);
                        yield new Snap(
                                offset,
                                occurredUs,
                                floorUs,
                                eventId,
                                requestId,
                                message == null ? null : FeatureSnapshot.parseFrom(message));
                    }
                    case IMPRESSIONS -> readShown(offset, occurredUs, floorUs, eventId, requestId, in, waiting);
                    case ACTIONS -> {
                        Acted acted = new Acted(
                                offset, occurredUs, floorUs, eventId, requestId, in.readLong(), in.readInt());
                        acted.pending = in.readBoolean();
                        acted.raw = readBytes(in);
                        yield acted;
                    }
                };
        held.holdUs = holdUs;
        held.dueUs = dueUs;
        held.seconds.addAll(seconds);
        return held;
    }

    private static Shown readShown(
            long offset,
            long occurredUs,
            long floorUs,
            String eventId,
            String requestId,
            DataInput in,
            Map<Shown, long[]> waiting)
            throws IOException {
        boolean unscored = in.readBoolean();
        boolean open = in.readBoolean();
        int count = in.readInt();
        long[] items = new long[count];
        int[] rowOf = new int[count];
        int[] positions = new int[count];
        for (int k = 0; k < count; k++) {
            items[k] = in.readLong();
            rowOf[k] = in.readInt();
            positions[k] = in.readInt();
        }
        Shown shown = new Shown(offset, occurredUs, floorUs, eventId, requestId, unscored, items, rowOf);
        shown.open = open;
        shown.positions = in.readBoolean() ? positions : null;
        shown.raw = readBytes(in);
        byte[] columns = readBytes(in);
        shown.rows = columns == null ? null : new ShownRows(TrainingSample.parseFrom(columns));
        shown.decided = BitSet.valueOf(readBytes(in));
        long[] offsets = new long[in.readInt()];
        for (int k = 0; k < offsets.length; k++) {
            offsets[k] = in.readLong();
        }
        waiting.put(shown, offsets);
        return shown;
    }

    private static void writeBytes(byte[] bytes, DataOutput out) throws IOException {
        out.writeInt(bytes == null ? -1 : bytes.length);
        if (bytes != null) {
            out.write(bytes);
        }
    }

    private static byte[] readBytes(DataInput in) throws IOException {
        int length = in.readInt();
        if (length < 0) {
            return null;
        }
        byte[] bytes = new byte[length];
        in.readFully(bytes);
        return bytes;
    }
}
