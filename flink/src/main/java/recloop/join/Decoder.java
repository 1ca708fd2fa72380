package recloop.join;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Timestamp;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import rec.events.v1.Events.Action;
import rec.events.v1.Events.ActionKind;
import rec.events.v1.Events.EventRecord;
import rec.events.v1.Events.EventRecord.RecordCase;
import rec.events.v1.Events.FeatureSnapshot;
import rec.events.v1.Events.Impression;

/**
 * From the bytes of an input record to an event, or the reason why it is none. Only structure is judged here: a record
 * that passes can be joined without further checks. Checks, their order and their words are the joiner's.
 */
final class Decoder {
    private static final int MAX_REQUEST_ID_CHARS = 64;
    private static final int MAX_EVENT_ID_CHARS = 128;
    private static final int MAX_BARRIER_ID_CHARS = 128;
    // The range that a protobuf Timestamp may hold: years 1 to 9999.
    private static final long MIN_SECONDS = -62_135_596_800L;
    private static final long MAX_SECONDS = 253_402_300_799L;

    private Decoder() {}

    /** One input record, checked; Malformed says what is wrong. */
    static EventRecord decode(Source source, byte[] raw, int maxItems) {
        EventRecord record;
        try {
            record = EventRecord.parseFrom(raw);
        } catch (InvalidProtocolBufferException error) {
            throw new Malformed("record", raw.length + " bytes", "an EventRecord", 0);
        }
        RecordCase kind = record.getRecordCase();
        if (kind == RecordCase.RECORD_NOT_SET) {
            throw new Malformed("record", "empty", "one of the events", 0);
        }
        int items = kind == RecordCase.IMPRESSION ? record.getImpression().getItemIdsCount() : 0;
        if (kind != source.event && kind != RecordCase.HEARTBEAT && kind != RecordCase.BARRIER) {
            throw new Malformed("record", lower(kind), lower(source.event) + ", heartbeat or barrier", items);
        }
        if (!hasOccurredAt(record)) {
            throw new Malformed("occurred_at", "unset", "a time", items);
        }
        long seconds = occurredAt(record).getSeconds();
        if (seconds < MIN_SECONDS || seconds > MAX_SECONDS) {
            throw new Malformed("occurred_at", seconds, "years 1 to 9999", items);
        }
        switch (kind) {
            case SNAPSHOT -> checkSnapshot(record.getSnapshot(), maxItems);
            case IMPRESSION -> checkImpression(record.getImpression(), maxItems);
            case ACTION -> checkAction(record.getAction());
            case BARRIER -> checkId("barrier_id", record.getBarrier().getBarrierId(), MAX_BARRIER_ID_CHARS, 0);
            default -> { }
        }
        return record;
    }

    /** The event time of any record. */
    static Timestamp occurredAt(EventRecord record) {
        return switch (record.getRecordCase()) {
            case SNAPSHOT -> record.getSnapshot().getOccurredAt();
            case IMPRESSION -> record.getImpression().getOccurredAt();
            case ACTION -> record.getAction().getOccurredAt();
            case HEARTBEAT -> record.getHeartbeat().getOccurredAt();
            case BARRIER -> record.getBarrier().getOccurredAt();
            case RECORD_NOT_SET -> throw new IllegalStateException("an empty record has no time");
        };
    }

    private static boolean hasOccurredAt(EventRecord record) {
        return switch (record.getRecordCase()) {
            case SNAPSHOT -> record.getSnapshot().hasOccurredAt();
            case IMPRESSION -> record.getImpression().hasOccurredAt();
            case ACTION -> record.getAction().hasOccurredAt();
            case HEARTBEAT -> record.getHeartbeat().hasOccurredAt();
            case BARRIER -> record.getBarrier().hasOccurredAt();
            case RECORD_NOT_SET -> false;
        };
    }

    private static String lower(RecordCase kind) {
        return kind.name().toLowerCase(Locale.ROOT);
    }

    private static void checkId(String field, String id, int most, int items) {
        if (id.isEmpty() || id.codePointCount(0, id.length()) > most) {
            throw new Malformed(field, id, "1 to " + most + " characters", items);
        }
    }

    private static void checkIds(String requestId, String eventId, int items) {
        checkId("request_id", requestId, MAX_REQUEST_ID_CHARS, items);
        checkId("event_id", eventId, MAX_EVENT_ID_CHARS, items);
    }

    private static void checkSnapshot(FeatureSnapshot event, int maxItems) {
        checkIds(event.getRequestId(), event.getEventId(), 0);
        int size = event.getItemIds().size();
        int rows = size / 8;
        if (size % 8 != 0 || rows == 0 || rows > maxItems) {
            throw new Malformed("item_ids", size + " bytes", "8 bytes for each of 1 to " + maxItems + " items", 0);
        }
        int scores = event.getScores().size();
        if (scores != 4 * rows) {
            throw new Malformed("scores", scores + " bytes", 4 * rows + " bytes", 0);
        }
        int features = event.getItemFeatures().size();
        if (features % (4 * rows) != 0) {
            throw new Malformed("item_features", features + " bytes", rows + " rows of float32", 0);
        }
        int user = event.getUserFeatures().size();
        if (user % 4 != 0) {
            throw new Malformed("user_features", user + " bytes", "float32", 0);
        }
    }

    private static void checkImpression(Impression event, int maxItems) {
        int rows = event.getItemIdsCount();
        checkIds(event.getRequestId(), event.getEventId(), rows);
        if (rows == 0 || rows > maxItems) {
            throw new Malformed("item_ids", rows, "1 to " + maxItems + " items", rows);
        }
        List<Long> shown = event.getItemIdsList();
        if (new HashSet<>(shown).size() != rows) {
            List<String> unsigned = shown.stream().map(Long::toUnsignedString).toList();
            throw new Malformed("item_ids", unsigned, "each item once", rows);
        }
        int positions = event.getPositionsCount();
        if (positions != 0 && positions != rows) {
            throw new Malformed("positions", positions, "none, or " + rows, rows);
        }
    }

    private static void checkAction(Action event) {
        checkIds(event.getRequestId(), event.getEventId(), 0);
        int kind = event.getKindValue();
        if (kind == 0 || ActionKind.forNumber(kind) == null) {
            throw new Malformed("kind", kind, "a known kind of action", 0);
        }
    }
}
