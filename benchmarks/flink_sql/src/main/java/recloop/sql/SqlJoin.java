package recloop.sql;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/**
 * Sends one of the SQL jobs to a cluster and waits for its end: {@code SqlJoin <job> key=value ...}. A key that has a dot
 * is a setting of Flink, any other fills a {@code ${...}} of the SQL; {@code explain=true} prints the plan instead.
 */
public final class SqlJoin {
    private static final Pattern HOLE = Pattern.compile("\\$\\{(\\w+)}");

    private SqlJoin() {}

    public static void main(String[] arguments) throws Exception {
        Configuration settings = new Configuration();
        Map<String, String> values = new HashMap<>();
        for (String argument : List.of(arguments).subList(1, arguments.length)) {
            String[] pair = argument.split("=", 2);
            if (pair[0].contains(".")) {
                settings.setString(pair[0], pair[1]);
            } else {
                values.put(pair[0], pair[1]);
            }
        }
        TableEnvironment tables = TableEnvironment.create(
                EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(settings).build());
        tables.createTemporarySystemFunction("cut_rows", CutRows.class);
        tables.createTemporarySystemFunction("each_row", EachRow.class);
        boolean explain = Boolean.parseBoolean(values.getOrDefault("explain", "false"));
        for (String file : List.of("tables", arguments[0])) {
            for (String statement : statements(file, values)) {
                if (statement.startsWith("INSERT") && explain) {
                    System.out.println(tables.explainSql(statement));
                } else {
                    TableResult result = tables.executeSql(statement);
                    if (statement.startsWith("INSERT")) {
                        result.await();
                    }
                }
            }
        }
    }

    private static List<String> statements(String file, Map<String, String> values) throws IOException {
        try (InputStream in = SqlJoin.class.getResourceAsStream("/sql/" + file + ".sql")) {
            if (in == null) {
                throw new IllegalArgumentException("job " + file + ": items, requests or labels");
            }
            String text = new String(in.readAllBytes(), StandardCharsets.UTF_8).replaceAll("(?m)^--.*\\R", "");
            String filled = HOLE.matcher(text).replaceAll(hole -> {
                String value = values.get(hole.group(1));
                if (value == null) {
                    throw new IllegalArgumentException(hole.group(1) + "=...: needed by " + file + ".sql");
                }
                return Matcher.quoteReplacement(value);
            });
            return List.of(filled.strip().split(";\\s*"));
        }
    }
}
