package recloop.join;

/** One record of an input topic, as it travels between Flink's operators. */
public final class InRecord {
    /** Ordinal of the {@link Source}. */
    public int source;

    public int partition;
    public long offset;
    /** Null when the record has none. */
    public byte[] key;

    public byte[] value;

    public InRecord() {}

    InRecord(Source source, int partition, long offset, byte[] key, byte[] value) {
        this.source = source.ordinal();
        this.partition = partition;
        this.offset = offset;
        this.key = key;
        this.value = value == null ? Held.NOTHING : value;
    }
}
