package recloop.join;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import rec.events.v1.Events.FeatureSnapshot;

/**
 * What a join remembers of one accepted record. It is held until the watermark has passed {@link #holdUs}. Records of
 * one request id are chained by {@code older} (more than one only when a request id is used again, much later).
 */
abstract sealed class Held {
    /** By when something happens to it, then by when it was armed. */
    static int byDue(Held a, Held b) {
        int order = Long.compare(a.dueUs, b.dueUs);
        return order != 0 ? order : Long.compare(a.armed, b.armed);
    }

    static final byte[] NOTHING = {};

    /** Event id and time of a record: what makes another one its repeat. */
    record Key(String eventId, long occurredUs) {}

    final long offset;
    final long occurredUs;
    /** The floor of its input when it came. */
    final long floorUs;
    final Key key;
    final String requestId;
    long holdUs = Times.NEVER_US;
    /** When the watermark is above this, something happens to it; equal ones in the order of arming. */
    long dueUs = Times.NEVER_US;
    long armed;
    /** Keys of the records refused because this one was there: their repeats are repeats. */
    final List<Key> seconds = new ArrayList<>(0);

    Held(long offset, long occurredUs, long floorUs, String eventId, String requestId) {
        this.offset = offset;
        this.occurredUs = occurredUs;
        this.floorUs = floorUs;
        this.key = new Key(eventId, occurredUs);
        this.requestId = requestId;
    }

    /** A snapshot or an impression: at most one of a request is remembered at a time. */
    abstract static sealed class Chained<T extends Chained<T>> extends Held {
        T older;

        Chained(long offset, long occurredUs, long floorUs, String eventId, String requestId) {
            super(offset, occurredUs, floorUs, eventId, requestId);
        }
    }

    /** A snapshot; {@code message} goes when its impression has taken the shown rows. */
    static final class Snap extends Chained<Snap> {
        FeatureSnapshot message;

        Snap(long offset, long occurredUs, long floorUs, String eventId, String requestId, FeatureSnapshot message) {
            super(offset, occurredUs, floorUs, eventId, requestId);
            this.message = message;
        }
    }

    /** An impression. Open until each of its items is decided; then only a tombstone is left. */
    static final class Shown extends Chained<Shown> {
        final boolean unscored;
        final long[] items;
        /** Row in {@code rows} of each item, -1 while (or because) it has none. */
        final int[] rowOf;
        /** Places of the items; null once the rows are known. */
        int[] positions;
        byte[] raw;
        boolean open;
        ShownRows rows;
        /** Rows that an action has labelled. */
        BitSet decided = new BitSet();
        /** Actions in the window that came before the snapshot, in their order. */
        final List<Acted> waiting = new ArrayList<>(0);

        Shown(
                long offset,
                long occurredUs,
                long floorUs,
                String eventId,
                String requestId,
                boolean unscored,
                long[] items,
                int[] rowOf) {
            super(offset, occurredUs, floorUs, eventId, requestId);
            this.unscored = unscored;
            this.open = !unscored;
            this.items = items;
            this.rowOf = rowOf;
        }

        /** Index among the shown items, -1 when it was not shown. */
        int indexOf(long item) {
            for (int k = 0; k < items.length; k++) {
                if (items[k] == item) {
                    return k;
                }
            }
            return -1;
        }
    }

    /** An action; {@code raw} goes when its outcome is known. */
    static final class Acted extends Held {
        final long itemId;
        final int kind;
        byte[] raw;
        /** No impression that it is about has come yet. */
        boolean pending;

        Acted(long offset, long occurredUs, long floorUs, String eventId, String requestId, long itemId, int kind) {
            super(offset, occurredUs, floorUs, eventId, requestId);
            this.itemId = itemId;
            this.kind = kind;
        }
    }
}
