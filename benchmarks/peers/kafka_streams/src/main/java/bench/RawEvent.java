package bench;

import java.util.Map;

/** One thing that a visitor did. */
public record RawEvent(
    String id,
    long timestamp,
    String user_id,
    String event_type,
    double value,
    String page,
    double time_on_page,
    Map<String, String> properties) {}
