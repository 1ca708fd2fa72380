package recloop.join;

import rec.events.v1.Events.EventRecord.RecordCase;

/** The inputs of a join, in the order of the loop. */
public enum Source {
    SNAPSHOTS(RecordCase.SNAPSHOT),
    IMPRESSIONS(RecordCase.IMPRESSION),
    ACTIONS(RecordCase.ACTION);

    /** The only event that may stand on this input, beside heartbeats and barriers. */
    final RecordCase event;

    Source(RecordCase event) {
        this.event = event;
    }

    /** Its name as it is written in lines and messages. */
    public String lower() {
        return name().toLowerCase(java.util.Locale.ROOT);
    }
}
