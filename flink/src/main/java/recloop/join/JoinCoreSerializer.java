package recloop.join;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.core.memory.DataOutputView;

/** The join of one partition in keyed state: an object on the heap, bytes ({@link JoinState}) in checkpoints. */
public final class JoinCoreSerializer extends TypeSerializerSingleton<JoinCore> {
    private static final int FIRST_BYTES = 1 << 16;

    @Override
    public void serialize(JoinCore core, DataOutputView out) throws IOException {
        JoinState.write(core, out);
    }

    @Override
    public JoinCore deserialize(DataInputView in) throws IOException {
        return JoinState.read(in);
    }

    @Override
    public JoinCore deserialize(JoinCore reuse, DataInputView in) throws IOException {
        return deserialize(in);
    }

    /** While a checkpoint is being written, the join goes on with a copy. */
    @Override
    public JoinCore copy(JoinCore core) {
        try {
            DataOutputSerializer bytes = new DataOutputSerializer(FIRST_BYTES);
            serialize(core, bytes);
            return deserialize(new DataInputDeserializer(bytes.getSharedBuffer(), 0, bytes.length()));
        } catch (IOException error) {
            throw new IllegalStateException("a join that was written can be read", error);
        }
    }

    @Override
    public JoinCore copy(JoinCore core, JoinCore reuse) {
        return copy(core);
    }

    @Override
    public void copy(DataInputView in, DataOutputView out) throws IOException {
        serialize(deserialize(in), out);
    }

    @Override
    public boolean isImmutableType() {
        return false;
    }

    /** Flink asks for it; every use has a JoinConfig of its own, so this one joins nothing. */
    @Override
    public JoinCore createInstance() {
        return new JoinCore(JoinConfig.of(1, 0));
    }

    @Override
    public int getLength() {
        return -1;
    }

    @Override
    public TypeSerializerSnapshot<JoinCore> snapshotConfiguration() {
        return new Snapshot();
    }

    /** The bytes carry a version of their own. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<JoinCore> {
        public Snapshot() {
            super(JoinCoreSerializer::new);
        }
    }
}
