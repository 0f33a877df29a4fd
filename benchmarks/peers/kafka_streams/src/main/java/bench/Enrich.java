package bench;

import java.util.Map;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Produced;

/** Join each event with its user's profile. */
public class Enrich {
    private static final long DAY_MS = 86_400_000;

    record Profile(String user_id, String country, String tier, long signup_ts) {}

    record EnrichedEvent(
        String id,
        long timestamp,
        String user_id,
        String event_type,
        double value,
        String page,
        double time_on_page,
        Map<String, String> properties,
        String country,
        String tier,
        long signup_ts,
        long days_since_signup,
        boolean is_purchase) {

        static EnrichedEvent of(RawEvent event, Profile profile) {
            return new EnrichedEvent(
                event.id(), event.timestamp(), event.user_id(), event.event_type(), event.value(),
                event.page(), event.time_on_page(), event.properties(), profile.country(),
                profile.tier(), profile.signup_ts(),
                Math.max(0, event.timestamp() - profile.signup_ts()) / DAY_MS,
                event.event_type().equals("purchase"));
        }
    }

    static void of(StreamsBuilder builder, KStream<String, RawEvent> events) {
        KTable<String, Profile> profiles = builder.table(
            "user-profiles", Consumed.with(Serdes.String(), new Json<>(Profile.class)));
        events
            .join(profiles, EnrichedEvent::of,
                Joined.with(Serdes.String(), new Json<>(RawEvent.class), new Json<>(Profile.class)))
            .to("enriched-events",
                Produced.with(Serdes.String(), new Json<>(EnrichedEvent.class)));
    }
}
