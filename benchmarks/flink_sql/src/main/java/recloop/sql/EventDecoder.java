package recloop.sql;

import com.google.protobuf.CodedInputStream;
import com.google.protobuf.WireFormat;
import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;

/** Reads the wanted fields of {@code rec.events.v1.EventRecord} from the wire; columns stay bytes. */
final class EventDecoder implements DeserializationSchema<RowData> {
    /** The events, with their field numbers in the envelope and those of their own fields. */
    enum Kind {
        SNAPSHOT(1, Map.of("request_id", 2, "ts", 3, "item_ids", 9, "scores", 10, "item_features", 12)),
        IMPRESSION(2, Map.of("request_id", 2, "ts", 3, "item_ids", 5)),
        ACTION(3, Map.of("request_id", 2, "ts", 3, "item_id", 5, "kind", 6));

        final int number;
        final Map<String, Integer> fields;

        Kind(int number, Map<String, Integer> fields) {
            this.number = number;
            this.fields = fields;
        }
    }

    private static final int REQUEST_ID = 2;
    private static final int OCCURRED_AT = 3;

    private final int number;
    private final int width;
    /** Column of each field number, -1 when nobody asks for it. */
    private final int[] column;
    private final TypeInformation<RowData> type;

    EventDecoder(Kind kind, List<String> names, TypeInformation<RowData> type) {
        this.number = kind.number;
        this.width = names.size();
        this.type = type;
        this.column = new int[16];
        Arrays.fill(column, -1);
        for (int at = 0; at < width; at++) {
            Integer field = kind.fields.get(names.get(at));
            if (field == null) {
                throw new IllegalArgumentException(
                        "column " + names.get(at) + ": a " + kind + " has " + kind.fields.keySet());
            }
            column[field] = at;
        }
    }

    @Override
    public RowData deserialize(byte[] value) throws IOException {
        CodedInputStream in = CodedInputStream.newInstance(value);
        int tag = in.readTag();
        if (WireFormat.getTagFieldNumber(tag) != number) {
            return null; // a heartbeat or barrier: no row
        }
        GenericRowData row = new GenericRowData(width);
        int end = in.pushLimit(in.readRawVarint32());
        while ((tag = in.readTag()) != 0) {
            int field = WireFormat.getTagFieldNumber(tag);
            int at = field < column.length ? column[field] : -1;
            if (at < 0) {
                in.skipField(tag);
            } else if (field == REQUEST_ID) {
                row.setField(at, StringData.fromBytes(in.readByteArray()));
            } else if (field == OCCURRED_AT) {
                row.setField(at, time(in));
            } else if (WireFormat.getTagWireType(tag) == WireFormat.WIRETYPE_LENGTH_DELIMITED) {
                row.setField(at, in.readByteArray()); // packed fixed64 and byte columns are the same bytes
            } else if (WireFormat.getTagWireType(tag) == WireFormat.WIRETYPE_FIXED64) {
                row.setField(at, in.readFixed64());
            } else {
                row.setField(at, in.readEnum());
            }
        }
        in.popLimit(end);
        return row;
    }

    private static TimestampData time(CodedInputStream in) throws IOException {
        long seconds = 0;
        int nanos = 0;
        int end = in.pushLimit(in.readRawVarint32());
        for (int tag = in.readTag(); tag != 0; tag = in.readTag()) {
            switch (WireFormat.getTagFieldNumber(tag)) {
                case 1 -> seconds = in.readInt64();
                case 2 -> nanos = in.readInt32();
                default -> in.skipField(tag);
            }
        }
        in.popLimit(end);
        return TimestampData.fromEpochMillis(seconds * 1000 + nanos / 1_000_000);
    }

    @Override
    public boolean isEndOfStream(RowData row) {
        return false;
    }

    @Override
    public TypeInformation<RowData> getProducedType() {
        return type;
    }
}
