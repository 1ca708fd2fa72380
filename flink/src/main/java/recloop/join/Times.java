package recloop.join;

import com.google.protobuf.Timestamp;

/** Event time as microseconds since 1970 UTC, and its protobuf form. */
final class Times {
    /** Before every event time. */
    static final long NEVER_US = -(1L << 62);

    private static final long MICROS = 1_000_000;

    private Times() {}

    /** Microseconds since 1970 UTC; finer digits are truncated. */
    static long toUs(Timestamp stamp) {
        return stamp.getSeconds() * MICROS + Math.floorDiv(stamp.getNanos(), 1000);
    }

    static Timestamp fromUs(long micros) {
        return Timestamp.newBuilder()
                .setSeconds(Math.floorDiv(micros, MICROS))
                .setNanos((int) Math.floorMod(micros, MICROS) * 1000)
                .build();
    }
}
