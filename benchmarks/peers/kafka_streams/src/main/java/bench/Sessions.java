package bench;

import java.time.Duration;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.SessionStore;

/**
 * One session per user and visit: 30 minutes of quiet end it, 5 minutes of grace.
 *
 * <p>Closed sessions are looked for once a second. By default the store forgets them 35 minutes
 * after their end, which a backlog passes within that second: hence the retention.
 */
public class Sessions {
    record Totals(long events, long page_views, double total_time) {
        Totals add(RawEvent event) {
            return new Totals(
                events + 1,
                page_views + (event.event_type().equals("page_view") ? 1 : 0),
                total_time + event.time_on_page());
        }

        Totals merge(Totals other) {
            return new Totals(
                events + other.events,
                page_views + other.page_views,
                total_time + other.total_time);
        }
    }

    record UserSession(
        String user_id, long start, long end, long events, long page_views, double total_time,
        boolean bounce) {

        static KeyValue<String, UserSession> of(Windowed<String> key, Totals totals) {
            return KeyValue.pair(key.key(), new UserSession(
                key.key(), key.window().start(), key.window().end(), totals.events(),
                totals.page_views(), totals.total_time(), totals.page_views() == 1));
        }
    }

    static void of(KStream<String, RawEvent> events) {
        events
            .groupByKey(Grouped.with(Serdes.String(), new Json<>(RawEvent.class)))
            .windowedBy(SessionWindows.ofInactivityGapAndGrace(
                Duration.ofMinutes(30), Duration.ofMinutes(5)))
            .emitStrategy(EmitStrategy.onWindowClose())
            .aggregate(
                () -> new Totals(0, 0, 0),
                (user, event, totals) -> totals.add(event),
                (user, one, other) -> one.merge(other),
                Materialized
                    .<String, Totals, SessionStore<Bytes, byte[]>>as("sessions")
                    .withKeySerde(Serdes.String())
                    .withValueSerde(new Json<>(Totals.class))
                    .withRetention(Duration.ofDays(2)))
            .toStream()
            .map(UserSession::of)
            .to("user-sessions", Produced.with(Serdes.String(), new Json<>(UserSession.class)));
    }
}
