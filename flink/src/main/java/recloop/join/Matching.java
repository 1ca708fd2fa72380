package recloop.join;

import com.google.protobuf.ByteString;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.stream.IntStream;
import recloop.join.Held.Acted;
import recloop.join.Held.Chained;
import recloop.join.Held.Key;
import recloop.join.Held.Shown;
import recloop.join.Held.Snap;
import recloop.join.Output.Rejected;
import recloop.join.Output.Sample;

/**
 * The state of a join and its transitions: accepted events in, outputs out.
 *
 * <p>Life of an impression: open, (snapshot taken: rows known), closed by the watermark or a barrier, released. Life of
 * an action: pending (no impression yet) or waiting (no snapshot yet), outcome, released. The watermark moves things
 * on; it never decides which events belong together ({@link Rules} does).
 */
final class Matching {
    final Map<String, Snap> snaps = new HashMap<>();
    final Map<String, Shown> shown = new HashMap<>();
    final Map<Key, Acted> acts = new HashMap<>();
    final Map<String, List<Acted>> pending = new HashMap<>();
    /** Everything held, each once, by when something happens to it. */
    final PriorityQueue<Held> timers = new PriorityQueue<>(Held::byDue);

    List<Output> out = new ArrayList<>();
    JoinConfig config;
    private final Map<Integer, LabelRule> rules;
    private long armed;

    Matching(JoinConfig config) {
        this.config = config;
        this.rules = config.rules();
    }

    int heldEvents() {
        return timers.size();
    }

    // -- events ------------------------------------------------------------------------------------------------------

    /** A snapshot that is neither late nor a repeat nor a second one. */
    void addSnapshot(Snap snap) {
        chain(snaps, snap);
        hold(snap, Long.MAX_VALUE);
        for (Shown at = shown.get(snap.requestId); at != null; at = at.older) {
            if (at.open && at.rows == null && Rules.snapshotBelongs(config, snap, at)) {
                takeRows(snap, at);
                return;
            }
        }
    }

    /** An impression that is neither late nor a repeat nor a second one. */
    void addImpression(Shown impression) {
        chain(shown, impression);
        hold(impression, impression.occurredUs + config.windowUs());
        if (impression.unscored) {
            rejectItems(impression, Reason.UNSCORED, impression.items.length, ByteString.EMPTY);
            strip(impression);
        } else {
            for (Snap at = snaps.get(impression.requestId); at != null; at = at.older) {
                if (Rules.snapshotBelongs(config, at, impression)) {
                    takeRows(at, impression);
                    break;
                }
            }
        }
        for (Acted acted : List.copyOf(pending.getOrDefault(impression.requestId, List.of()))) {
            if (Rules.actionIsAbout(config, acted, impression)) {
                unpend(acted);
                apply(acted, impression);
            }
        }
    }

    /** An action that is neither late nor a repeat. */
    void addAction(Acted acted) {
        acts.put(acted.key, acted);
        if (!rules.containsKey(acted.kind)) {
            hold(acted, Long.MAX_VALUE);
            rejectAction(acted, Reason.NO_LABEL_RULE);
            return;
        }
        for (Shown at = shown.get(acted.requestId); at != null; at = at.older) {
            if (Rules.actionIsAbout(config, acted, at)) {
                hold(acted, Long.MAX_VALUE);
                apply(acted, at);
                return;
            }
        }
        pend(acted);
        hold(acted, acted.occurredUs + config.skewUs());
    }

    // -- time --------------------------------------------------------------------------------------------------------

    /** Closes and releases what lies below the watermark of the task. */
    void advance(long watermarkUs) {
        while (!timers.isEmpty() && timers.peek().dueUs < watermarkUs) {
            Held held = timers.poll();
            if (held instanceof Shown impression && impression.open) {
                close(impression);
            } else if (held instanceof Acted acted && acted.pending) {
                giveUp(acted);
            }
            if (held.holdUs < watermarkUs) {
                release(held);
            } else {
                arm(held, held.holdUs);
            }
        }
    }

    /** A barrier has come on every input: closes all earlier impressions, gives up earlier lone actions. */
    void passFloor(long floorUs) {
        Comparator<Held> byOffset = Comparator.comparingLong(held -> held.offset);
        List<Held> before =
                timers.stream().filter(held -> held.occurredUs < floorUs).sorted(byOffset).toList();
        for (Held held : before) {
            if (held instanceof Shown impression && impression.open) {
                close(impression);
            }
        }
        for (Held held : before) {
            if (held instanceof Acted acted && acted.pending) {
                giveUp(acted);
            }
        }
    }

    // -- outcomes ----------------------------------------------------------------------------------------------------

    private void takeRows(Snap snap, Shown impression) {
        if (snap.message == null) {
            return;
        }
        impression.rows = ShownRows.take(snap.message, impression);
        long[] absent = IntStream.range(0, impression.items.length)
                .filter(k -> impression.rowOf[k] < 0)
                .mapToLong(k -> impression.items[k])
                .toArray();
        if (absent.length > 0) {
            rejectItems(impression, Reason.NOT_IN_SNAPSHOT, absent.length, ShownRows.uint64s(absent));
        }
        snap.message = null;
        impression.positions = null;
        impression.raw = Held.NOTHING;
        for (Acted acted : impression.waiting) {
            apply(acted, impression);
        }
        impression.waiting.clear();
    }

    private void apply(Acted acted, Shown impression) {
        LabelRule rule = rules.get(acted.kind);
        int index = impression.indexOf(acted.itemId);
        if (!Rules.actionInWindow(acted, impression, rule.windowUs())) {
            rejectAction(acted, Reason.AFTER_WINDOW);
        } else if (index < 0) {
            rejectAction(acted, Reason.NOT_IMPRESSED);
        } else if (impression.unscored) {
            rejectAction(acted, Reason.UNSCORED);
        } else if (impression.rows == null && impression.open) {
            impression.waiting.add(acted);
        } else if (impression.rows == null) {
            rejectAction(acted, Reason.SNAPSHOT_LOST);
        } else if (impression.rowOf[index] < 0) {
            rejectAction(acted, Reason.NOT_IN_SNAPSHOT);
        } else if (!impression.open || impression.decided.get(impression.rowOf[index])) {
            rejectAction(acted, Reason.ALREADY_LABELLED);
        } else {
            int row = impression.rowOf[index];
            impression.decided.set(row);
            out.add(new Sample(impression.rows.positive(row, rule.label(), acted.occurredUs), 1, true));
            acted.raw = Held.NOTHING;
        }
    }

    /** The window is over: what no action has labelled is negative (or leaves with its reason). */
    private void close(Shown impression) {
        impression.open = false;
        if (impression.rows == null) {
            rejectItems(impression, Reason.SNAPSHOT_LOST, impression.items.length, ByteString.EMPTY);
            impression.waiting.forEach(acted -> rejectAction(acted, Reason.SNAPSHOT_LOST));
            impression.waiting.clear();
        } else {
            int[] left = IntStream.range(0, impression.rows.size)
                    .filter(row -> !impression.decided.get(row))
                    .toArray();
            if (left.length > 0) {
                out.add(new Sample(impression.rows.negatives(left), left.length, false));
            }
        }
        strip(impression);
    }

    /** Leaves the tombstone: enough to name the reason of whatever still refers to it. */
    private static void strip(Shown impression) {
        if (impression.rows != null) {
            impression.rows = ShownRows.DROPPED;
        }
        impression.raw = Held.NOTHING;
        impression.positions = null;
    }

    private void rejectItems(Shown impression, Reason reason, int items, ByteString itemIds) {
        out.add(new Rejected(
                reason,
                Source.IMPRESSIONS,
                impression.offset,
                impression.raw,
                impression.requestId,
                items,
                itemIds,
                ""));
    }

    private void rejectAction(Acted acted, Reason reason) {
        out.add(new Rejected(
                reason, Source.ACTIONS, acted.offset, acted.raw, acted.requestId, 0, ByteString.EMPTY, ""));
        acted.raw = Held.NOTHING;
    }

    private void giveUp(Acted acted) {
        unpend(acted);
        rejectAction(acted, Reason.NO_IMPRESSION);
    }

    void pend(Acted acted) {
        acted.pending = true;
        pending.computeIfAbsent(acted.requestId, id -> new ArrayList<>(1)).add(acted);
    }

    private void unpend(Acted acted) {
        acted.pending = false;
        List<Acted> waiting = pending.get(acted.requestId);
        waiting.remove(acted);
        if (waiting.isEmpty()) {
            pending.remove(acted.requestId);
        }
    }

    // -- keeping -----------------------------------------------------------------------------------------------------

    /** Keeps it as long as it may matter; something happens to it before that when {@code firstDueUs} is earlier. */
    private void hold(Held held, long firstDueUs) {
        held.holdUs = held.occurredUs + config.memoryUs();
        if (timers.size() >= config.maxHeldEvents()) {
            throw new StateFull(timers.size() + 1, config.maxHeldEvents());
        }
        arm(held, Math.min(firstDueUs, held.holdUs));
    }

    /** Due again at that time, after all that is due then already. */
    void arm(Held held, long dueUs) {
        held.dueUs = dueUs;
        held.armed = armed++;
        timers.add(held);
    }

    private void release(Held held) {
        if (held instanceof Snap snap) {
            unchain(snaps, snap);
        } else if (held instanceof Shown impression) {
            unchain(shown, impression);
        } else {
            acts.remove(held.key);
        }
    }

    static <T extends Chained<T>> void chain(Map<String, T> heads, T held) {
        held.older = heads.put(held.requestId, held);
    }

    private static <T extends Chained<T>> void unchain(Map<String, T> heads, T held) {
        T at = heads.get(held.requestId);
        if (at == held) {
            if (held.older == null) {
                heads.remove(held.requestId);
            } else {
                heads.put(held.requestId, held.older);
            }
            return;
        }
        while (at.older != held) {
            at = at.older;
        }
        at.older = held.older;
    }
}
