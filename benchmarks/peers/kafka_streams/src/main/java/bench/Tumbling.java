package bench;

import java.time.Duration;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Count by user, event type and minute, 5 minutes of grace, each count emitted once.
 *
 * <p>A processor, since groupBy(user, type) would go through a repartition topic, where a backlog
 * comes in a different order: most of it would be late. Window keys begin with the minute, so that
 * those that close are one range.
 */
public class Tumbling {
    private static final long MINUTE_MS = 60_000;
    private static final long GRACE_MS = 5 * MINUTE_MS;

    record EventCount(String user_id, String event_type, long start, long end, long count) {}

    static void of(StreamsBuilder builder, KStream<String, RawEvent> events) {
        builder.addStateStore(Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("counts"), Serdes.String(), Serdes.Long())
            .withCachingEnabled());
        events
            .process(Count::new, "counts")
            .to("event-counts", Produced.with(Serdes.String(), new Json<>(EventCount.class)));
    }

    static class Count extends ContextualProcessor<String, RawEvent, String, EventCount> {
        private KeyValueStore<String, Long> counts;

        @Override
        public void init(ProcessorContext<String, EventCount> context) {
            super.init(context);
            counts = context.getStateStore("counts");
            context.schedule(
                Duration.ofMillis(MINUTE_MS), PunctuationType.STREAM_TIME, this::close);
        }

        @Override
        public void process(Record<String, RawEvent> event) {
            long start = event.timestamp() - event.timestamp() % MINUTE_MS;
            if (start + MINUTE_MS + GRACE_MS <= context().currentStreamTimeMs()) {
                return;
            }
            String key = start + "|" + event.key() + "|" + event.value().event_type();
            Long count = counts.get(key);
            counts.put(key, count == null ? 1 : count + 1);
        }

        private void close(long streamTime) {
            String until = Long.toString(streamTime - GRACE_MS - MINUTE_MS + 1);
            try (KeyValueIterator<String, Long> closed = counts.range("0", until)) {
                while (closed.hasNext()) {
                    KeyValue<String, Long> next = closed.next();
                    String[] parts = next.key.split("\\|");
                    long start = Long.parseLong(parts[0]);
                    context().forward(new Record<>(
                        parts[1],
                        new EventCount(parts[1], parts[2], start, start + MINUTE_MS, next.value),
                        start + MINUTE_MS));
                    counts.delete(next.key);
                }
            }
        }
    }
}
