"""What every process needs: settings, logging, TLS, limits of rate, garbage collection; no request and no database."""
