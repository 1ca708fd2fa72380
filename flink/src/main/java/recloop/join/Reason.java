package recloop.join;

import java.util.Locale;

/** Why a record did not become (all of) what it stands for; named as on the topics. */
public enum Reason {
    LATE,
    AFTER_WINDOW,
    NO_IMPRESSION,
    NOT_IMPRESSED,
    ALREADY_LABELLED,
    NO_LABEL_RULE,
    SNAPSHOT_LOST,
    UNSCORED,
    NOT_IN_SNAPSHOT,
    SECOND_IMPRESSION,
    SECOND_SNAPSHOT,
    MALFORMED;

    /** As it stands in the header of a rejected record. */
    public final String wire = name().toLowerCase(Locale.ROOT);
}
