package recloop.join;

import recloop.join.Held.Acted;
import recloop.join.Held.Shown;
import recloop.join.Held.Snap;

/**
 * Which events are about each other: functions of event times and barrier floors only, never of arrival. That is why
 * every interleaving of the inputs gives the same samples.
 */
final class Rules {
    private Rules() {}

    /** The snapshot is what this impression was scored with (not one behind a barrier that closed it). */
    static boolean snapshotBelongs(JoinConfig config, Snap snap, Shown shown) {
        return shown.occurredUs - config.showWithinUs() <= snap.occurredUs
                && snap.occurredUs <= shown.occurredUs + config.skewUs()
                && shown.occurredUs >= snap.floorUs;
    }

    /** The action is a consequence of this impression, in time or too late. */
    static boolean actionIsAbout(JoinConfig config, Acted acted, Shown shown) {
        return Math.max(shown.occurredUs - config.skewUs(), shown.floorUs) <= acted.occurredUs
                && acted.occurredUs <= shown.occurredUs + config.reachUs();
    }

    /** Its end included; an action behind a barrier is outside the windows which that barrier closed. */
    static boolean actionInWindow(Acted acted, Shown shown, long windowUs) {
        return acted.occurredUs <= shown.occurredUs + windowUs && shown.occurredUs >= acted.floorUs;
    }

    /** By its own input's watermark alone, whatever the other inputs do and whenever the state is swept. */
    static boolean remembered(JoinConfig config, long occurredUs, InputClock clock) {
        return clock.watermarkUs <= occurredUs + config.memoryUs();
    }
}
