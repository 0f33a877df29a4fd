package bench;

import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;

/** Decode and count. One progress record for every 20 events of a partition. */
public class Passthrough {
    static void of(KStream<String, RawEvent> events) {
        events
            .process(Count::new)
            .to("progress", Produced.with(Serdes.String(), Serdes.String()));
    }

    static class Count extends ContextualProcessor<String, RawEvent, String, String> {
        private long seen;

        @Override
        public void process(Record<String, RawEvent> event) {
            if (++seen % 20 == 0) {
                context().forward(event.withValue(Long.toString(seen)));
            }
        }
    }
}
