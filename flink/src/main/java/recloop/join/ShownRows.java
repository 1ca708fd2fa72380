package recloop.join;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import rec.events.v1.Events.FeatureSnapshot;
import rec.events.v1.Events.TrainingSample;
import recloop.join.Held.Shown;

/** The scored rows of one impression, in the order shown. Columns are little-endian bytes. */
final class ShownRows {
    /** What is left of rows that were let go. */
    static final ShownRows DROPPED = new ShownRows(TrainingSample.getDefaultInstance());

    private static final ByteString ZERO = ByteString.copyFrom(new byte[4]);

    /** item_ids, positions, scores, item_features, and all that is one per request. */
    final TrainingSample columns;

    final int size;

    ShownRows(TrainingSample columns) {
        this.columns = columns;
        this.size = columns.getItemIds().size() / 8;
    }

    /** Finds the shown items among the scored; fills {@code shown.rowOf}. */
    static ShownRows take(FeatureSnapshot snapshot, Shown shown) {
        ByteBuffer served = view(snapshot.getItemIds());
        int count = served.remaining() / 8;
        int[] at = new int[shown.items.length];
        int size = 0;
        for (int k = 0; k < shown.items.length; k++) {
            int row = 0;
            while (row < count && served.getLong(8 * row) != shown.items[k]) {
                row++;
            }
            if (row < count) {
                at[size] = row;
                shown.rowOf[k] = size++;
            }
        }
        ByteBuffer ids = column(8 * size);
        ByteBuffer positions = column(4 * size);
        for (int k = 0; k < shown.items.length; k++) {
            if (shown.rowOf[k] >= 0) {
                ids.putLong(shown.items[k]);
                positions.putInt(shown.positions[k]);
            }
        }
        TrainingSample.Builder sample = TrainingSample.newBuilder()
                .setRequestId(snapshot.getRequestId())
                .setOccurredAt(snapshot.getOccurredAt())
                .setUserId(snapshot.getUserId())
                .setSchemaHash(snapshot.getSchemaHash())
                .setArm(snapshot.getArm())
                .setUserFeatures(snapshot.getUserFeatures())
                .setSampleRate(1)
                .setImpressedAt(Times.fromUs(shown.occurredUs))
                .setItemIds(wrap(ids))
                .setPositions(wrap(positions))
                .setScores(rows(snapshot.getScores(), 4, at, size))
                .setItemFeatures(rows(
                        snapshot.getItemFeatures(), snapshot.getItemFeatures().size() / count, at, size));
        if (snapshot.hasModel()) {
            sample.setModel(snapshot.getModel());
        }
        if (snapshot.hasScoredAt()) {
            sample.setScoredAt(snapshot.getScoredAt());
        }
        return new ShownRows(sample.build());
    }

    /** The one row that an action has decided. */
    TrainingSample positive(int row, float label, long actedUs) {
        ByteBuffer labels = column(4).putFloat(label);
        return cut(new int[] {row})
                .setLabels(wrap(labels))
                .setLabelVersions(ZERO)
                .setActedAt(Times.fromUs(actedUs))
                .build();
    }

    /** The given rows (ascending), decided by the window's end. */
    TrainingSample negatives(int[] rows) {
        ByteString zeros = UnsafeByteOperations.unsafeWrap(new byte[4 * rows.length]);
        TrainingSample.Builder sample = rows.length == size ? columns.toBuilder() : cut(rows);
        return sample.setLabels(zeros).setLabelVersions(zeros).build();
    }

    /** Everything of the given rows but their labels. */
    private TrainingSample.Builder cut(int[] rows) {
        ByteString features = columns.getItemFeatures();
        int count = rows.length;
        return columns.toBuilder()
                .setItemIds(rows(columns.getItemIds(), 8, rows, count))
                .setPositions(rows(columns.getPositions(), 4, rows, count))
                .setScores(rows(columns.getScores(), 4, rows, count))
                .setItemFeatures(rows(features, features.size() / size, rows, count));
    }

    /** A column of ids. */
    static ByteString uint64s(long... ids) {
        ByteBuffer column = column(8 * ids.length);
        column.asLongBuffer().put(ids);
        return wrap(column);
    }

    private static ByteString rows(ByteString column, int width, int[] rows, int count) {
        byte[] cut = new byte[width * count];
        for (int k = 0; k < count; k++) {
            column.copyTo(cut, width * rows[k], width * k, width);
        }
        return UnsafeByteOperations.unsafeWrap(cut);
    }

    private static ByteBuffer view(ByteString column) {
        return column.asReadOnlyByteBuffer().slice().order(ByteOrder.LITTLE_ENDIAN);
    }

    private static ByteBuffer column(int bytes) {
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static ByteString wrap(ByteBuffer filled) {
        return UnsafeByteOperations.unsafeWrap(filled.array());
    }
}
