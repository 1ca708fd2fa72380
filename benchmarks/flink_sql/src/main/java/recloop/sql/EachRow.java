package recloop.sql;

import java.util.Arrays;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.FunctionHint;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.TableFunction;

/** One row for each that {@link CutRows} has cut; {@code width} = bytes of its features. */
@FunctionHint(
        output = @DataTypeHint(
                value = "ROW<item_id BIGINT, place INT, score FLOAT, item_features BYTES>",
                bridgedTo = RowData.class))
public final class EachRow extends TableFunction<RowData> {
    public void eval(byte[] rows, int width) {
        for (int at = 0; at < rows.length; at += CutRows.HEAD + width) {
            collect(GenericRowData.of(
                    (long) CutRows.LONGS.get(rows, at),
                    (int) CutRows.INTS.get(rows, at + 8),
                    Float.intBitsToFloat((int) CutRows.INTS.get(rows, at + 12)),
                    Arrays.copyOfRange(rows, at + CutRows.HEAD, at + CutRows.HEAD + width)));
        }
    }
}
