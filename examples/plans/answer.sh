cd "$LEGIVELLUM_WORK_DIR" && { echo "Dear customer, we have noted:"; cat inputs/requests; } > output
