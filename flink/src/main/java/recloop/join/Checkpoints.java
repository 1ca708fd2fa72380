package recloop.join;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.Comparator;
import java.util.Optional;
import java.util.stream.Stream;

/** Where a local run goes on after a crash. On a cluster its own recovery (or flink run -s) does that. */
final class Checkpoints {
    private Checkpoints() {}

    /** The newest complete checkpoint in a folder: it has its _metadata, which is written last and moved into place. */
    static Optional<String> newest(String folder) {
        URI uri = URI.create(folder);
        if (!"file".equals(uri.getScheme()) || !Files.isDirectory(Path.of(uri))) {
            return Optional.empty();
        }
        try (Stream<Path> files = Files.walk(Path.of(uri), 3)) {
            return files.filter(file -> file.endsWith("_metadata"))
                    .max(Comparator.comparing(Checkpoints::written))
                    .map(file -> file.getParent().toUri().toString());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static FileTime written(Path file) {
        try {
            return Files.getLastModifiedTime(file);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
