package recloop.sql;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.util.Arrays;
import org.apache.flink.table.functions.ScalarFunction;

/**
 * Cuts the shown rows out of the columns of the served ones, so that no more than these travel on. Columns are little-endian bytes;
 * a cut row is {@code item u64, place u32, score f32, features}. Shown but not served gives no row.
 */
public final class CutRows extends ScalarFunction {
    static final int HEAD = 16;
    static final VarHandle LONGS = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
    static final VarHandle INTS = MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.LITTLE_ENDIAN);

    /** The shown items alone, without score and features. */
    public byte[] eval(byte[] shown) {
        byte[] rows = new byte[shown.length / 8 * HEAD];
        for (int place = 0; 8 * place < shown.length; place++) {
            LONGS.set(rows, HEAD * place, (long) LONGS.get(shown, 8 * place));
            INTS.set(rows, HEAD * place + 8, place);
        }
        return rows;
    }

    /** With the score and the features of each. */
    public byte[] eval(byte[] shown, byte[] served, byte[] scores, byte[] features) {
        int width = 8 * features.length / served.length;
        byte[] rows = new byte[shown.length / 8 * (HEAD + width)];
        int end = 0;
        for (int place = 0; 8 * place < shown.length; place++) {
            long item = (long) LONGS.get(shown, 8 * place);
            int row = find(served, item, place);
            if (row >= 0) {
                LONGS.set(rows, end, item);
                INTS.set(rows, end + 8, place);
                INTS.set(rows, end + 12, (int) INTS.get(scores, 4 * row));
                System.arraycopy(features, width * row, rows, end + HEAD, width);
                end += HEAD + width;
            }
        }
        return end == rows.length ? rows : Arrays.copyOf(rows, end);
    }

    /** Shown are mostly the best of the served, in their order: begin where that would be. */
    private static int find(byte[] served, long item, int likely) {
        int rows = served.length / 8;
        for (int step = 0; step < rows; step++) {
            int row = (likely + step) % rows;
            if ((long) LONGS.get(served, 8 * row) == item) {
                return row;
            }
        }
        return -1;
    }
}
