package recloop.join;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class JoinOptionsTest {
    @Test
    void withoutOptionsTheJoinersDefaultsHold() {
        JoinOptions options = JoinOptions.parse("--bootstrap", "localhost:9092");
        assertEquals(JoinConfig.of(20_000_000, 2_000_000), options.config());
        assertEquals(List.of("feature-snapshots", "impressions", "actions"), options.topics().inputs());
        assertEquals(
                List.of("samples-flink", "late-events-flink", "dead-letters-flink"), options.topics().outputs());
        assertTrue(options.localCheckpointDir().startsWith("file:/"));
    }

    @Test
    void labelsNameKindLabelAndWindow() {
        JoinConfig config = JoinOptions.parse(
                        "--bootstrap", "k:1", "--labels", "click:1:500,purchase:0.5", "--window-ms", "900")
                .config();
        assertEquals(List.of(new LabelRule(1, 1, 500_000), new LabelRule(4, 0.5f, 900_000)), config.labels());
    }

    @Test
    void everyBadOptionIsNamedAtOnce() {
        InvalidInput error = assertThrows(
                InvalidInput.class,
                () -> JoinOptions.parse(
                        "--window-ms", "0", "--labels", "stare", "--wat", "--samples", "actions", "--parallelism",
                        "x", "--checkpoint-interval-ms", "5000", "--transaction-timeout-ms", "9000"));
        for (String bad : List.of(
                "--bootstrap=:",
                "--window-ms=0:",
                "--labels=stare:",
                "option=--wat:",
                "topics=",
                "--checkpoint-interval-ms=5000: at most half of --transaction-timeout-ms 9000",
                "--parallelism=x:")) {
            assertTrue(error.getMessage().contains(bad), bad + " in " + error.getMessage());
        }
    }

    @Test
    void theNewestCompleteCheckpointIsTheOneToGoOnFrom(@TempDir Path folder) throws IOException {
        assertEquals(Optional.empty(), Checkpoints.newest(folder.toUri().toString()));
        for (String name : List.of("a/chk-1", "a/chk-2", "b/chk-1")) {
            Path metadata = Files.createDirectories(folder.resolve(name)).resolve("_metadata");
            long seconds = name.equals("a/chk-2") ? 20 : 10;
            Files.setLastModifiedTime(Files.createFile(metadata), FileTime.from(seconds, TimeUnit.SECONDS));
        }
        Files.createDirectories(folder.resolve("b/chk-9"));
        String newest = folder.resolve("a/chk-2").toUri().toString();
        assertEquals(Optional.of(newest), Checkpoints.newest(folder.toUri().toString()));
    }
}
