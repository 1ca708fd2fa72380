package recloop.join;

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import rec.events.v1.Events.TrainingSample;
import recloop.join.Output.BarrierPassed;
import recloop.join.Output.Rejected;
import recloop.join.Output.Sample;

/**
 * The join without Flink and Kafka: logs on standard input, outputs on standard output, one a line. For comparing it
 * with the other implementations; many logs may follow one another.
 *
 * <pre>
 *   join window_us bound_us show_within_us kind:label:window_us ...   a new log begins
 *   SNAPSHOTS|IMPRESSIONS|ACTIONS offset hex                          one record
 *   checkpoint                                                        the state is written and read back
 *   end                                                               prints "end"
 * </pre>
 *
 * Outputs are printed as in tests/golden/join_output.txt; a malformed record has its detail after it.
 */
public final class Lines {
    private static final HexFormat HEX = HexFormat.of();

    private Lines() {}

    public static void main(String[] arguments) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        JoinCore core = null;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            switch (words[0]) {
                case "join" -> core = new JoinCore(config(words));
                case "checkpoint" -> core = throughBytes(core);
                case "end" -> out.println("end");
                default -> {
                    byte[] raw = words.length > 2 ? HEX.parseHex(words[2]) : new byte[0];
                    for (Output said : core.feed(Source.valueOf(words[0]), Long.parseLong(words[1]), raw)) {
                        out.println(line(said));
                    }
                }
            }
        }
        out.flush();
    }

    /** The join as a restart finds it. */
    static JoinCore throughBytes(JoinCore core) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        JoinState.write(core, new DataOutputStream(bytes));
        return JoinState.read(new DataInputStream(new ByteArrayInputStream(bytes.toByteArray())));
    }

    /** One output as text: what it is, then its bytes. */
    static String line(Output output) {
        if (output instanceof Sample sample) {
            TrainingSample message = sample.message();
            String sign = sample.positive() ? "positive" : "negative";
            return "sample " + sample.rows() + " " + sign + " " + HEX.formatHex(message.toByteArray());
        }
        if (output instanceof Rejected row) {
            String ids = row.itemIds().isEmpty() ? "-" : HEX.formatHex(row.itemIds().toByteArray());
            String line = "rejected " + row.reason().wire + " " + row.source().lower() + " " + row.offset() + " "
                    + row.items() + " " + ids;
            return row.detail().isEmpty() ? line : line + " " + row.detail();
        }
        BarrierPassed passed = (BarrierPassed) output;
        return "barrier " + passed.barrierId() + " " + passed.occurredUs();
    }

    private static JoinConfig config(String[] words) {
        List<LabelRule> labels = new ArrayList<>();
        for (int k = 4; k < words.length; k++) {
            String[] parts = words[k].split(":");
            labels.add(new LabelRule(
                    Integer.parseInt(parts[0]), Float.parseFloat(parts[1]), Long.parseLong(parts[2])));
        }
        return new JoinConfig(
                Long.parseLong(words[1]),
                Long.parseLong(words[2]),
                Long.parseLong(words[3]),
                labels,
                JoinConfig.MAX_HELD_EVENTS,
                JoinConfig.MAX_ITEMS);
    }
}
