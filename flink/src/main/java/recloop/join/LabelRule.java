package recloop.join;

import java.io.Serializable;

/**
 * One kind of action that labels a shown item.
 *
 * @param kind number of the ActionKind
 * @param label the label that it gives, above 0, at most 1
 * @param windowUs how long after the impression it still counts, its end included
 */
public record LabelRule(int kind, float label, long windowUs) implements Serializable {}
