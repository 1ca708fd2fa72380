package recloop.join;

/** One input of one partition: its next offset, its event clock and its barrier floor. */
final class InputClock {
    private final long boundUs;
    long nextOffset;
    long clockUs;
    long floorUs;
    long watermarkUs;

    InputClock(long boundUs, long nextOffset, long clockUs, long floorUs) {
        this.boundUs = boundUs;
        this.nextOffset = nextOffset;
        this.clockUs = clockUs;
        this.floorUs = floorUs;
        settle();
    }

    private void settle() {
        long byClockUs = clockUs > Times.NEVER_US ? clockUs - boundUs : Times.NEVER_US;
        watermarkUs = Math.max(byClockUs, floorUs);
    }

    /** Takes an event's time in; true when the clock moved. */
    boolean observe(long occurredUs) {
        if (occurredUs <= clockUs) {
            return false;
        }
        clockUs = occurredUs;
        settle();
        return true;
    }

    /** A barrier: nothing earlier will follow. */
    void raiseFloor(long occurredUs) {
        floorUs = Math.max(floorUs, occurredUs);
        clockUs = Math.max(clockUs, occurredUs);
        settle();
    }
}
