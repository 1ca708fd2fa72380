package recloop.sql;

import java.util.List;
import java.util.Set;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.EncodingFormat;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.SerializationFormatFactory;
import org.apache.flink.table.types.DataType;

/** The SQL format {@code recloop-sample}: a row of {@link SampleEncoder#COLUMNS} as a {@code SampleRecord} of that one row. */
public final class SampleFormat implements SerializationFormatFactory {
    @Override
    public String factoryIdentifier() {
        return "recloop-sample";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of();
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of();
    }

    @Override
    public EncodingFormat<SerializationSchema<RowData>> createEncodingFormat(
            DynamicTableFactory.Context context, ReadableConfig options) {
        return new EncodingFormat<>() {
            @Override
            public SerializationSchema<RowData> createRuntimeEncoder(DynamicTableSink.Context sink, DataType columns) {
                List<String> names = DataType.getFieldNames(columns);
                if (!names.equals(SampleEncoder.COLUMNS)) {
                    throw new IllegalArgumentException("columns " + names + ": " + SampleEncoder.COLUMNS);
                }
                return new SampleEncoder();
            }

            @Override
            public ChangelogMode getChangelogMode() {
                return ChangelogMode.insertOnly();
            }
        };
    }
}
