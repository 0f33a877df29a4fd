package bench;

import java.io.FileInputStream;
import java.io.InputStream;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;

/** One Kafka Streams instance: {@code Main JOB TOPIC SETTINGS}. */
public class Main {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        try (InputStream file = new FileInputStream(args[2])) {
            settings.load(file);
        }
        if (settings.containsKey("tuned")) {
            settings.put("rocksdb.config.setter", BigBlocks.class);
        }
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, RawEvent> events =
            builder.stream(args[1], Consumed.with(Serdes.String(), new Json<>(RawEvent.class)));
        switch (args[0]) {
            case "passthrough" -> Passthrough.of(events);
            case "enrich" -> Enrich.of(builder, events);
            case "sessions" -> Sessions.of(events);
            case "tumbling" -> Tumbling.of(builder, events);
            case "main" -> {
                Enrich.of(builder, events);
                Sessions.of(events);
                Tumbling.of(builder, events);
            }
            default -> throw new IllegalArgumentException(args[0]);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        CountDownLatch stopped = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                System.out.println("READY");
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close();
            stopped.countDown();
        }));
        streams.start();
        stopped.await();
    }
}
