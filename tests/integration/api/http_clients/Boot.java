import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Boots one component with the JDK's client as it is made by default: it offers h2c with the first request. */
public class Boot {
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static HttpResponse<String> send(HttpRequest.Builder request) throws Exception {
        HttpResponse<String> response = CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofString());
        System.out.println(response.statusCode() + " " + response.version() + " " + response.body());
        return response;
    }

    static HttpRequest.Builder post(String path, String body) {
        return HttpRequest.newBuilder(URI.create(System.getenv("GATE_URL") + path))
                .header("X-API-Key", System.getenv("GATE_KEY"))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body));
    }

    public static void main(String[] arguments) throws Exception {
        String packet = send(post("/v1/bootstrap", "{\"component_key\": \"indexer_1\"}")).body();
        String id = packet.replaceFirst("(?s).*\"startup_id\":\\s*\"([^\"]+)\".*", "$1");
        send(post("/v1/startup/ready", "{\"startup_id\": \"" + id + "\", \"build_version\": \"1\"}"));
        send(HttpRequest.newBuilder(URI.create(System.getenv("GATE_URL") + "/health")));
    }
}
