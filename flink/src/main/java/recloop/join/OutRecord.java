package recloop.join;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** One record to send, as it travels between Flink's operators. */
public final class OutRecord {
    /** By the key, as Kafka does it. */
    public static final int BY_KEY = -1;

    public String topic;
    public int partition = BY_KEY;
    /** Null when it has none. */
    public byte[] key;

    public byte[] value;
    public String[] headerNames = {};
    public byte[][] headerValues = {};

    public OutRecord() {}

    OutRecord(String topic, int partition, byte[] key, byte[] value) {
        this.topic = topic;
        this.partition = partition;
        this.key = key;
        this.value = value;
    }

    OutRecord with(String header, byte[] value) {
        int count = headerNames.length;
        headerNames = Arrays.copyOf(headerNames, count + 1);
        headerValues = Arrays.copyOf(headerValues, count + 1);
        headerNames[count] = header;
        headerValues[count] = value;
        return this;
    }

    OutRecord with(String header, Object text) {
        return with(header, String.valueOf(text).getBytes(StandardCharsets.UTF_8));
    }
}
