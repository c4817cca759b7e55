# A worker's program: job.json is what is to be done, inputs/ what it is done with, output what came of it.
cd "$LEGIVELLUM_WORK_DIR" && grep please inputs/letter > output
