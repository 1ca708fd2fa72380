package recloop.sql;

import java.util.Set;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.DecodingFormat;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DeserializationFormatFactory;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.DataType;

/**
 * The SQL format {@code recloop-event}: one event of an {@code EventRecord}, as the columns that the table names. Straight from
 * the wire to Flink's internal rows, without message objects between.
 */
public final class EventFormat implements DeserializationFormatFactory {
    private static final ConfigOption<EventDecoder.Kind> KIND = ConfigOptions.key("kind")
            .enumType(EventDecoder.Kind.class)
            .noDefaultValue()
            .withDescription("Which event the topic carries; heartbeats and barriers give no row.");

    @Override
    public String factoryIdentifier() {
        return "recloop-event";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(KIND);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of();
    }

    @Override
    public DecodingFormat<DeserializationSchema<RowData>> createDecodingFormat(
            DynamicTableFactory.Context context, ReadableConfig options) {
        EventDecoder.Kind kind = options.get(KIND);
        return new DecodingFormat<>() {
            @Override
            public DeserializationSchema<RowData> createRuntimeDecoder(
                    DynamicTableSource.Context source, DataType columns) {
                return new EventDecoder(
                        kind, DataType.getFieldNames(columns), source.createTypeInformation(columns));
            }

            @Override
            public ChangelogMode getChangelogMode() {
                return ChangelogMode.insertOnly();
            }
        };
    }
}
