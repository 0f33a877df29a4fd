package bench;

import java.util.Map;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.BloomFilter;
import org.rocksdb.Cache;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;

/** RocksDB with one large cache for all stores, large write buffers, and bloom filters. */
public class BigBlocks implements RocksDBConfigSetter {
    private static final Cache CACHE = new LRUCache(256L << 20);

    @Override
    public void setConfig(String store, Options options, Map<String, Object> configs) {
        BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
        table.setBlockCache(CACHE);
        table.setFilterPolicy(new BloomFilter());
        options.setTableFormatConfig(table);
        options.setWriteBufferSize(64L << 20);
    }

    @Override
    public void close(String store, Options options) {}
}
