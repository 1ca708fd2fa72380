package recloop.sql;

import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/**
 * Runs a script in this process, on the events of bounded topics, and prints the rows of its last statement, a query:
 * {@code SqlView <file>}. A line is "row" and the columns, with tabs before them: Flink's log is on the same stream.
 */
public final class SqlView {
    private SqlView() {}

    public static void main(String[] arguments) throws Exception {
        TableEnvironment tables =
                TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().build());
        tables.getConfig().set("table.local-time-zone", "UTC");
        tables.getConfig().set("parallelism.default", "1");
        tables.createTemporarySystemFunction("cut_rows", CutRows.class);
        tables.createTemporarySystemFunction("each_row", EachRow.class);
        String[] statements = Files.readString(Path.of(arguments[0])).strip().split(";\\s*");
        for (int at = 0; at < statements.length - 1; at++) {
            tables.executeSql(statements[at]);
        }
        try (CloseableIterator<Row> rows = tables.executeSql(statements[statements.length - 1]).collect()) {
            while (rows.hasNext()) {
                Row row = rows.next();
                StringBuilder line = new StringBuilder("row");
                for (int at = 0; at < row.getArity(); at++) {
                    line.append('\t').append(row.getField(at));
                }
                System.out.println(line);
            }
        }
    }
}
