package recloop.join;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import rec.events.v1.Events.ActionKind;

/**
 * What the join may decide by. All durations are event time in microseconds. Contradictions die in the constructor.
 *
 * <p>From the given numbers follow: {@link #skewUs} (how far before its impression an action, or after it a snapshot,
 * may be stamped), {@link #reachUs} (an action up to this long after an impression is about it) and {@link #memoryUs}
 * (how long, by its input's watermark, an event is remembered: longer than the widest interval in which two events can
 * be about each other).
 *
 * @param windowUs time after an impression in which an action labels it
 * @param boundUs disorder bound of each input
 * @param showWithinUs how long after its request a list may be shown and still find its snapshot
 * @param labels each kind at most once
 * @param maxHeldEvents events of one partition in memory; above it the job fails ({@link StateFull})
 * @param maxItems items of one record
 */
public record JoinConfig(
        long windowUs, long boundUs, long showWithinUs, List<LabelRule> labels, int maxHeldEvents, int maxItems)
        implements Serializable {
    public static final long MAX_WINDOW_US = 30L * 24 * 3600 * 1_000_000;
    public static final int MAX_HELD_EVENTS = 2_000_000;
    public static final int MAX_ITEMS = 10_000;

    public JoinConfig {
        labels = List.copyOf(labels);
        List<String> bad = new ArrayList<>();
        need(bad, 0 < windowUs && windowUs <= MAX_WINDOW_US, "window_us", windowUs, "1 to " + MAX_WINDOW_US);
        need(bad, 0 <= boundUs && boundUs <= MAX_WINDOW_US, "bound_us", boundUs, "0 to " + MAX_WINDOW_US);
        need(
                bad,
                0 < showWithinUs && showWithinUs <= MAX_WINDOW_US,
                "show_within_us",
                showWithinUs,
                "1 to " + MAX_WINDOW_US);
        need(bad, maxHeldEvents >= 1, "max_held_events", maxHeldEvents, "at least 1");
        need(bad, maxItems >= 1, "max_items", maxItems, "at least 1");
        need(bad, !labels.isEmpty(), "labels", "()", "at least one kind, or nothing is ever positive");
        List<Integer> kinds = labels.stream().map(LabelRule::kind).toList();
        need(bad, kinds.stream().distinct().count() == kinds.size(), "labels", kinds, "each kind once");
        for (LabelRule rule : labels) {
            need(
                    bad,
                    rule.kind() != 0 && ActionKind.forNumber(rule.kind()) != null,
                    "labels.kind",
                    rule.kind(),
                    "a known kind of action");
            need(bad, 0 < rule.label() && rule.label() <= 1, "labels.label", rule.label(), "above 0, at most 1");
            need(
                    bad,
                    0 < rule.windowUs() && rule.windowUs() <= windowUs,
                    "labels.window_us",
                    rule.windowUs(),
                    "within window_us: an item is decided when that has passed");
        }
        if (!bad.isEmpty()) {
            throw new InvalidInput(bad);
        }
    }

    private static void need(List<String> bad, boolean ok, String field, Object value, String allowed) {
        if (!ok) {
            bad.add(InvalidInput.violation(field, value, allowed));
        }
    }

    /** A click is positive in the whole window, and a list is shown within it. */
    public static JoinConfig of(long windowUs, long boundUs) {
        LabelRule click = new LabelRule(ActionKind.ACTION_KIND_CLICK_VALUE, 1, windowUs);
        return new JoinConfig(windowUs, boundUs, windowUs, List.of(click), MAX_HELD_EVENTS, MAX_ITEMS);
    }

    /** Largest time by which effect may be stamped before cause. */
    public long skewUs() {
        return boundUs;
    }

    /** An action later than this after an impression is not about it. */
    public long reachUs() {
        return Math.max(windowUs, showWithinUs) + skewUs();
    }

    /** How long past its time an event is remembered, by the watermark. */
    public long memoryUs() {
        return reachUs() + skewUs();
    }

    /** Kind of action to its rule, by kind. */
    public Map<Integer, LabelRule> rules() {
        Map<Integer, LabelRule> rules = new TreeMap<>();
        labels.forEach(rule -> rules.put(rule.kind(), rule));
        return rules;
    }

    /** Equal for equal decisions. A state built under another one cannot be continued. */
    public String fingerprint() {
        String rules = rules().values().stream()
                .map(rule -> rule.kind() + ":" + rule.label() + ":" + rule.windowUs())
                .collect(Collectors.joining(","));
        return "w" + windowUs + "b" + boundUs + "s" + showWithinUs + "l" + rules;
    }
}
