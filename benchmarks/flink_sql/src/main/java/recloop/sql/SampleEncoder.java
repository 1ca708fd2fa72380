package recloop.sql;

import com.google.protobuf.CodedOutputStream;
import com.google.protobuf.WireFormat;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.table.data.RowData;

/** Writes one row as {@code rec.events.v1.SampleRecord}: columns of one element each. */
final class SampleEncoder implements SerializationSchema<RowData> {
    static final List<String> COLUMNS = List.of("request_id", "item_id", "label", "place", "score", "item_features");

    // Field numbers of TrainingSample, and of it in SampleRecord.
    private static final int SAMPLE = 1;
    private static final int REQUEST_ID = 1;
    private static final int ITEM_IDS = 7;
    private static final int LABELS = 8;
    private static final int POSITIONS = 10;
    private static final int SCORES = 11;
    private static final int ITEM_FEATURES = 12;

    @Override
    public byte[] serialize(RowData row) {
        byte[] request = row.getString(0).toBytes();
        byte[] features = row.getBinary(5);
        // Every tag and every length below is one byte but the last length.
        int size = 2 + request.length + (2 + 8) + 3 * (2 + 4)
                + 1 + CodedOutputStream.computeByteArraySizeNoTag(features);
        byte[] value = new byte[1 + CodedOutputStream.computeUInt32SizeNoTag(size) + size];
        CodedOutputStream out = CodedOutputStream.newInstance(value);
        try {
            out.writeTag(SAMPLE, WireFormat.WIRETYPE_LENGTH_DELIMITED);
            out.writeUInt32NoTag(size);
            out.writeByteArray(REQUEST_ID, request);
            out.writeTag(ITEM_IDS, WireFormat.WIRETYPE_LENGTH_DELIMITED);
            out.writeUInt32NoTag(8);
            out.writeFixed64NoTag(row.getLong(1));
            word(out, LABELS, Float.floatToRawIntBits(row.getFloat(2)));
            word(out, POSITIONS, row.getInt(3));
            word(out, SCORES, Float.floatToRawIntBits(row.getFloat(4)));
            out.writeByteArray(ITEM_FEATURES, features);
            out.checkNoSpaceLeft();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return value;
    }

    private static void word(CodedOutputStream out, int field, int bits) throws IOException {
        out.writeTag(field, WireFormat.WIRETYPE_LENGTH_DELIMITED);
        out.writeUInt32NoTag(4);
        out.writeFixed32NoTag(bits);
    }
}
