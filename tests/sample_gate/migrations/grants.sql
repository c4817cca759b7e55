REVOKE ALL ON ALL ROUTINES IN SCHEMA samplegate FROM PUBLIC;
GRANT USAGE ON SCHEMA samplegate TO samplegate_writer;
GRANT EXECUTE ON FUNCTION samplegate.state, samplegate.store, samplegate.note, samplegate.interview TO samplegate_writer;
