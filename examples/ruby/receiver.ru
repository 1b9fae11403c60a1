# Receive events with any Rack server: TASKHOOK_SECRET=whsec_... rackup receiver.ru
require "fileutils"
require "json"
require "openssl"

KEY = ENV.fetch("TASKHOOK_SECRET", "").strip.delete_prefix("whsec_").unpack1("m")
abort "TASKHOOK_SECRET must be the whsec_... of the endpoint" if KEY.bytesize < 16 # with an empty key anybody could sign

def verify(env, body, tolerance_s = 300)
  id, timestamp = env["HTTP_WEBHOOK_ID"].to_s, env["HTTP_WEBHOOK_TIMESTAMP"].to_s
  return false if id.empty? || !timestamp.match?(/\A\d{1,12}\z/) || (Time.now.to_i - timestamp.to_i).abs > tolerance_s

  digest = OpenSSL::HMAC.digest("SHA256", KEY, "#{id}.#{timestamp}.".b + body)
  expected = "v1,#{[digest].pack("m0")}"
  env["HTTP_WEBHOOK_SIGNATURE"].to_s.split.any? { |signature| OpenSSL.secure_compare(signature, expected) }
end

# An event may come twice; the second file of that name is refused.
def keep(id, body)
  directory = ENV.fetch("EVENTS_DIR", "events")
  FileUtils.mkdir_p(directory)
  File.open(File.join(directory, "#{id}.json"), "wxb") { |file| file.write(body) }
  true
rescue Errno::EEXIST
  false
end

run(lambda do |env|
  body = env["rack.input"].read.b
  next [400, {}, []] unless verify(env, body)

  event = JSON.parse(body)
  if keep(event["id"], body) && event["type"] == "task.succeeded"
    warn "#{event["data"]["id"]} #{event["data"]["result"]["outputs"][0]["url"]}"
  end
  [204, {}, []]
end)
